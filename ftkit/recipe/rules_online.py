"""The rules of methods whose answers the policy samples as it learns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ftkit.core.errors import Fault

if TYPE_CHECKING:
    from ftkit.recipe.rules import Said

ONLINE = ("grpo", "ppo", "trpo", "disco")
"""Methods that learn from rollouts."""

GROUPED = ("grpo", "trpo", "disco")
"""Those that compare the answers to a prompt with each other."""


LEAST = 0.01
"""vLLM's lowest temperature."""

OF_OPTIMIZERS = (
    "lr",
    "optimizer",
    "schedule",
    "warmup",
    "min_lr",
    "max_grad_norm",
    "weight_decay",
    "betas",
    "eps",
    "momentum",
)
"""What `train` says of learning rates and of what is done with gradients."""


def unread_online(said: Said) -> Iterator[tuple[str, str]]:
    """Yield the path of every constant that an online run would not read, or only such a run."""
    method = said.get("method.name")
    yield from _unread_of_vllm(said)
    if method not in ONLINE:
        for path in ("train.updates", "train.rollout_epochs", "sample.logged"):
            yield path, f"{method} samples no rollouts"
        return
    if method == "grpo":
        yield from _unread_of_grpo(_Grpo(said))
    if method == "ppo":
        yield from _unread_of_ppo(said)
    if method == "trpo":
        yield from _unread_of_trpo()
    if method == "disco":
        yield from _unread_of_disco(said)


def _unread_of_vllm(said: Said) -> Iterator[tuple[str, str]]:
    if said.get("sample.engine", "hf") != "vllm":
        yield "sample.vllm", "the engine is hf"
    elif said.says("sample.vllm.server"):
        for key in ("memory", "tensor_parallel", "sleep", "eager"):
            yield f"sample.vllm.{key}", "servers are told as they are started, by ftkit serve"
    else:
        for key in ("exchange", "wait"):
            yield f"sample.vllm.{key}", "vLLM runs in the trainer's process, without a server"


def _faults_of_vllm(said: Said) -> Iterator[Fault]:
    value = said.get("sample.temperature", 1.0)
    too_low = isinstance(value, int | float) and 0 < value < LEAST
    if too_low and said.get("sample.engine") == "vllm":
        found = f"{value}, and vLLM samples at {LEAST} instead"
        yield Fault("sample.temperature", found, f"write 0, which is greedy, or {LEAST} and more")


class _Grpo:
    """What a recipe and its preset say of grpo."""

    def __init__(self, said: Said) -> None:
        from ftkit.objectives.grpo import PRESETS

        self._said = said
        self._preset: Mapping[str, Any] = PRESETS.get(str(said.get("method.preset")), {})

    def get(self, key: str, default: Any) -> Any:
        return self._said.get(f"method.{key}", self._preset.get(key, default))


def _unread_of_grpo(grpo: _Grpo) -> Iterator[tuple[str, str]]:
    if grpo.get("surrogate", "clip") == "reinforce":
        for key in ("ratio", "clip_low", "clip_high"):
            yield f"method.{key}", "surrogate: reinforce has no ratio"
    if grpo.get("length", "answer") != "constant":
        yield "method.constant", "only length: constant divides by it"
    if not grpo.get("beta", 0.0):
        yield "method.kl", "without beta there is no KL"
    if not grpo.get("drop", False):
        yield "method.refill", "without drop no prompts are left out"


def _unread_of_ppo(said: Said) -> Iterator[tuple[str, str]]:
    if not said.get("method.beta", 0.0):
        yield "method.kl_in", "without beta there is no KL"
    if said.get("method.critic", "own") == "own":
        yield "method.value_coef", "a critic of its own has its own learning rate, critic_lr"
        return
    for key in ("critic_path", "critic_lr"):
        yield f"method.{key}", "critic: shared is a head on the policy, with its learning rate"


def _unread_of_trpo() -> Iterator[tuple[str, str]]:
    for key in ("updates", "rollout_epochs"):
        yield f"train.{key}", "trpo makes one update of each rollout"
    for key in OF_OPTIMIZERS:
        yield f"train.{key}", "trpo finds the length of each step itself, by method.delta"


def _unread_of_disco(said: Said) -> Iterator[tuple[str, str]]:
    trust = said.get("method.trust", "constraint")
    if said.get("method.objective", "L2") == "L1":
        yield "method.tau", "L1 has no tau"
    if trust != "constraint":
        yield "method.delta", "only trust: constraint has a delta"
    if trust not in {"constraint", "kl"}:
        yield "method.beta", f"trust: {trust} has no beta"
        yield "method.kl", f"trust: {trust} estimates no KL"
    if trust != "clip":
        yield "method.clip", "only trust: clip clips"


def faults_online(said: Said) -> Iterator[Fault]:
    """Yield what an online method lacks, or cannot be exact with."""
    method = said.get("method.name")
    yield from _faults_of_vllm(said)
    if method != "trpo" and not said.says("train.lr"):
        yield Fault("train.lr", "missing", "write a number above 0")
    if method not in ONLINE:
        return
    if method == "trpo" and said.get("model.dtype", "float32") != "float32":
        found = "rounds away the small KL that trpo measures"
        yield Fault("model.dtype", f"{said.get('model.dtype')} {found}", "write float32")
    if not said.says("sample"):
        remedy = "write sample: {answers: 8, temperature: 1.0, max_tokens: 256}"
        yield Fault("sample", f"missing, and {method} learns from answers that it samples", remedy)
    if not said.says("verify"):
        remedy = "write verify: {name: math}, or another verifier"
        yield Fault("verify", f"missing, and {method} learns from answers that are judged", remedy)
    if said.get("sample.temperature", 1.0) == 0:
        remedy = "write a temperature above 0"
        yield Fault("sample.temperature", "all answers to a prompt would be equal", remedy)
    for key, neutral in (("top_k", None), ("top_p", 1.0)):
        if said.get(f"sample.{key}", neutral) != neutral:
            found = "samples another distribution than the one whose probabilities are learnt"
            yield Fault(f"sample.{key}", found, "remove it")
    answers = said.get("sample.answers", 1)
    if method in GROUPED and said.says("sample") and isinstance(answers, int) and answers < 2:  # noqa: PLR2004
        found = f"{answers} to a prompt, and {method} compares answers to the same prompt"
        yield Fault("sample.answers", found, "write 2 or more, such as 8")
