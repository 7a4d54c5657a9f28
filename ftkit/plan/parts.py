"""The parts of a run's memory, each in the phases in which it is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ftkit.objectives import TRPO
from ftkit.plan.head import head_bytes
from ftkit.plan.setting import BEFORE, LEARN, SAMPLE, SAVE, UPDATE, VALUES
from ftkit.plan.spread import WIDE, Place

if TYPE_CHECKING:
    from ftkit.plan.setting import Setting

LIBRARIES = "libraries"
"""The name of the part that every run has alike."""

CONTEXT = {"cpu": 0, "cuda": 2**30}
"""Bytes of a GPU: its context, the workspaces of its libraries, buffers of NCCL."""

PROCESS = {"cpu": 450 * 2**20, "cuda": 2 * 2**30}
"""Bytes of the host: Python, torch and transformers, and what they make as they run."""

SERVED = 2**30
"""Bytes of vLLM's cache without a GPU (``samplers.vllm.inside``)."""

VECTORS, JOINED = 44, 20
"""Bytes of each trained number in trpo's update: b, x, r, p, a sum in float64, p in float32; then,
when the activations are gone, a gradient in float32 and float64, and the whole of them joined."""

PRODUCTS = 6
"""float32 numbers for each logit of a part in trpo's products with the curvature."""


@dataclass(frozen=True)
class Part:
    """Something that takes memory."""

    name: str
    during: Mapping[str, int]
    """Bytes in each phase: of the GPU or, without one, of the process."""
    host: int = 0
    """Bytes of the host, beside a GPU."""


def states(setting: Setting) -> Iterator[Part]:
    """Yield what is there all the time: weights, the optimizer's state, gradients."""
    spread, facts = setting.spread, setting.trained
    yield _always(setting, "weights", [spread.weights(each.weights) for each in facts])
    own = [spread.optimizer(each.trained, each.narrow) for each in facts]
    new = replace(spread, moments=0)
    masters = sum(new.optimizer(each.trained, each.narrow).device for each in facts)
    yield _without(_always(setting, "optimizer", own), {BEFORE: masters})
    yield gradients(setting)
    gathered = spread.gathered(setting.facts.numbers, setting.facts.element)
    whole = dict.fromkeys(setting.phases, gathered)
    if setting.sampling and gathered:
        whole[SAMPLE] = setting.facts.weights
    yield Part("gathered weights", whole)


def gradients(setting: Setting) -> Part:
    """Return the gradients, which stay until the next step's begin."""
    places = [setting.spread.gradients(each.trained) for each in setting.trained]
    missing = {LEARN: 0, VALUES: places[0].device} if setting.fresh else {}
    return _without(_always(setting, "gradients", places), {BEFORE: 0, **missing})


def _without(part: Part, other: Mapping[str, int]) -> Part:
    """Return a part that has other sizes in some phases, of those in which it is."""
    during = {phase: other.get(phase, size) for phase, size in part.during.items()}
    return Part(part.name, during, part.host)


def _always(setting: Setting, name: str, places: Iterable[Place]) -> Part:
    """Return a part that is there in every phase; without a GPU, host and device are one."""
    places = list(places)
    device, host = sum(each.device for each in places), sum(each.host for each in places)
    if setting.machine.kind == "cpu":
        device, host = device + host, 0
    return Part(name, dict.fromkeys(setting.phases, device), host)


def learning(setting: Setting) -> Iterator[Part]:
    """Yield what a part of a batch holds, in the body and in the head."""
    kind, held, learnt = setting.machine.kind, setting.held, setting.part.learnt
    busiest, kept = head_bytes(setting.facts, learnt, kind)
    body, head = {LEARN: held.saved}, {LEARN: max(busiest, kept + held.work)}
    if VALUES in setting.phases:
        own = setting.held_by_critic
        body[VALUES] = own.saved
        head[VALUES] = max(2 * learnt * setting.facts.width * WIDE, own.work)
    if isinstance(setting.recipe.method, TRPO):
        body[UPDATE] = max(held.saved, setting.facts.trained * JOINED)
    yield Part("activations", body)
    yield Part("log-probabilities", head)


def updating(setting: Setting) -> Iterator[Part]:
    """Yield what ends a step: gradients of embeddings, which come last, and trpo's update."""
    facts, work = setting.facts, setting.work
    yield Part("embeddings' gradient", {UPDATE: 2 * facts.table * facts.element})
    if not isinstance(setting.recipe.method, TRPO):
        return
    rows = work.learnt + PRODUCTS * setting.part.learnt
    yield Part("distributions", {UPDATE: rows * facts.vocabulary * WIDE})
    yield Part("conjugate gradients", {UPDATE: facts.trained * VECTORS})


def answering(setting: Setting) -> Iterator[Part]:
    """Yield what answers hold."""
    if (found := setting.sampling) is not None:
        yield Part("KV cache", {SAMPLE: found.cache})
        yield Part("logits of answers", {SAMPLE: found.work})


def beside(setting: Setting) -> Iterator[Part]:
    """Yield other models: a frozen policy, reward models that judge, vLLM."""
    spread, models = setting.spread, setting.models
    if models.beforehand:
        largest = max(spread.weights(each.facts.weights).device for each in models.beforehand)
        yield Part("reference beforehand", {BEFORE: largest + setting.held.forward})
    if models.reference is not None:
        yield _always(setting, "reference", [spread.weights(models.reference.facts.weights)])
    judges = [Place(judge.facts.weights) for judge in models.judges]
    yield _always(setting, "reward models", judges)
    if (how := setting.served) is None:
        return
    weights = setting.facts.numbers * setting.facts.element
    if setting.machine.kind == "cpu":
        yield Part("vLLM", dict.fromkeys(setting.phases, weights + SERVED))
        return
    phases = (SAMPLE,) if how.sleep else setting.phases
    share = round(how.memory * setting.machine.memory)
    yield Part("vLLM", dict.fromkeys(phases, share), weights if how.sleep else 0)


def around(setting: Setting) -> Iterator[Part]:
    """Yield files that are read or written, and libraries.

    Weights are loaded on the host first.  As they are written, the host has a copy of those on a
    GPU, and then the pages of the file, which is read back.
    """
    facts, kind = setting.facts, setting.machine.kind
    file = facts.weights if facts.trained == facts.numbers else facts.trained * WIDE
    if kind == "cpu":
        yield Part("written model", {SAVE: file})
    else:
        yield Part("loaded or written model", {}, max(facts.weights, file + facts.trained * WIDE))
    every = dict.fromkeys(setting.phases, CONTEXT[kind] + PROCESS[kind] * (kind == "cpu"))
    yield Part(LIBRARIES, every, PROCESS[kind] * (kind != "cpu"))
