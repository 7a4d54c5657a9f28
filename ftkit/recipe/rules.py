"""The rules that no single section can see.

They read what a recipe says, valid or not, so that their faults come together with those of the
sections.  A fault's place is the path of the key; the loader puts file, line and column before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ftkit.core.errors import Fault
from ftkit.recipe.rules_online import ONLINE, faults_online, unread_online
from ftkit.recipe.rules_parallel import faults_parallel, faults_quantized

MEASURES: dict[str, str] = {
    "eval.loss": "",
    "eval.perplexity": "",
    "eval.exact_match": "verify",
    "eval.exact_match_sampled": "sample",
    "eval.reward_accuracy": "answers",
    "eval.reward_auc": "answers",
    "eval.reward_hardest": "answers",
    "eval.margin": "answers",
    "eval.nll": "dpo",
}
"""What an evaluation can report, and the section that it needs beside ``data.eval``."""

RANKED_AMONG_SEVERAL = ("eval.reward_auc", "eval.reward_hardest")
"""Measures of rows with several negatives of a prompt."""

RANKED = ("eval.reward_accuracy", "eval.margin", *RANKED_AMONG_SEVERAL)
"""Measures of rows with several answers to a prompt."""

PAIRED = ("reward", "dpo")
"""Methods whose held-out rows have several answers."""


class Said:
    """What a recipe says, by dotted path."""

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self.tree = tree

    def get(self, path: str, default: Any = None) -> Any:
        """Return the value at a path, or ``default`` where the recipe says nothing."""
        value: Any = self.tree
        for part in path.split("."):
            if isinstance(value, Mapping):
                value = value.get(part)
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                return default
        return default if value is None else value

    def says(self, path: str) -> bool:
        """Whether something other than null or an empty map stands there."""
        return self.get(path) not in (None, {})


def unread(said: Said) -> Iterator[tuple[str, str]]:
    """Yield the path of every constant that this run would not read, and why."""
    method = said.get("method.name")
    for section in ("sample", "verify"):
        if method == "pretrain":
            yield section, "pretrain has no prompts to answer"
        if method == "reward":
            yield section, "a reward model writes no answers"
    yield from _unread_of_method(said)
    yield from unread_online(said)
    optimizer, of = said.get("train.optimizer", "adamw"), {"betas": "adamw", "eps": "adamw"}
    for constant, owner in {**of, "momentum": "sgd"}.items():
        if optimizer != owner:
            yield f"train.{constant}", f"a constant of {owner}, and the optimizer is {optimizer}"
    if said.get("train.schedule", "cosine") == "constant":
        yield "train.min_lr", "a constant schedule does not fall"
    if said.says("model.init"):
        yield "model.revision", "random weights have no revision"
        yield "model.init.vocab_size", "the vocabulary's size is the tokenizer's"
    yield from _unread_of_sources(said)
    yield from _unread_of_evaluation(said)


def _unread_of_method(said: Said) -> Iterator[tuple[str, str]]:
    method = said.get("method.name")
    if method != "dft":
        yield "data.pool", f"{method} has no negatives"
        yield "sample.system", "only the negatives of dft are sampled under system prompts"
    elif said.get("method.gamma", 0.85) == 1:
        yield "method.u_init", "with gamma: 1 nothing is remembered between visits"
    if said.get("eval.score") != "log_ratio":
        for constant in ("reference", "beta"):
            yield f"eval.{constant}", "only eval.score: log_ratio has a reference"
    if method == "reward":
        yield "eval.score", "a reward model ranks by its reward"
    elif method not in PAIRED and not isinstance(said.get("data.eval"), str | None):
        yield "eval.score", "held-out rows with one answer each are not ranked"
    elif method == "pretrain":
        yield "eval.score", "texts are not ranked"


def _unread_of_sources(said: Said) -> Iterator[tuple[str, str]]:
    train = said.get("data.train")
    places = [f"data.train.{i}" for i in range(len(train))] if isinstance(train, list) else []
    for place in [*places, "data.eval"]:
        path = said.get(f"{place}.path")
        if isinstance(path, str) and not path.startswith("hf:"):
            yield f"{place}.split", "only a data set of the hub (hf:NAME) has splits"
        if said.get("method.name") not in ONLINE:
            yield f"{place}.ask", f"{said.get('method.name')} learns from rows that have answers"
    yield "data.eval.weight", "held-out rows are all measured once"


def _unread_of_evaluation(said: Said) -> Iterator[tuple[str, str]]:
    method = said.get("method.name")
    negatives = method == "dft"  # they are what `sample` is for
    learnt = {"sample"} if negatives else {"sample", "verify"} if method in ONLINE else set()
    if not said.says("data.eval"):
        for path in ("verify", "sample", "eval.every", "eval.limit", "eval.score"):
            if path not in learnt:
                yield path, "there are no held-out rows: data.eval is not given"
    elif said.says("sample") and not said.says("verify") and not negatives:
        yield "sample", "nothing judges what is sampled: verify is not given"
    if said.get("sample.temperature", 1.0) == 0:
        for constant in ("top_k", "top_p", "answers"):
            yield f"sample.{constant}", "at temperature 0 nothing is drawn"


def faults_between_sections(said: Said) -> Iterator[Fault]:
    """Yield what is wrong between sections, or between the keys of one."""
    for path, why in unread(said):
        if said.says(path):
            yield Fault(path, f"would not be read: {why}", "remove it")
    yield from _model(said)
    yield from _negatives(said)
    yield from faults_online(said)
    yield from faults_parallel(said)
    yield from faults_quantized(said)
    yield from _length(said)
    yield from _measures(said)


def _model(said: Said) -> Iterator[Fault]:
    has_path, has_init = said.says("model.path"), said.says("model.init")
    if has_path and has_init:
        yield Fault("model.init", "both model.path and model.init", "keep one of them")
    if not has_path and not has_init:
        remedy = "write one: path for a folder or hub name, init for random weights"
        yield Fault("model", "neither path nor init", remedy)
    if has_init:
        if not isinstance(said.get("model.init.architecture"), str):
            found = "names no model type" if not said.says("model.init.architecture") else "no text"
            yield Fault("model.init.architecture", found, "write one, such as qwen2 or llama")
        if not said.says("model.tokenizer"):
            remedy = "write model.tokenizer: a folder or hub name"
            yield Fault("model.tokenizer", "missing, and model.init brings none", remedy)


def _negatives(said: Said) -> Iterator[Fault]:
    if said.get("method.name") != "dft":
        return
    if not said.says("data.pool"):
        remedy = "write data.pool: the folder that `ftkit gen-negatives` is to fill"
        yield Fault("data.pool", "missing, and dft learns against negatives", remedy)
    answers, wanted = said.get("sample.answers", 1), said.get("method.negatives", 2)
    if said.says("sample") and isinstance(answers, int) and isinstance(wanted, int):
        if answers < wanted:
            found = f"{answers} a prompt, and a step takes {wanted} (method.negatives)"
            yield Fault("sample.answers", found, f"sample {wanted} or more, or take fewer")
        if said.get("sample.temperature", 1.0) == 0:
            remedy = "write a temperature above 0"
            yield Fault("sample.temperature", "all negatives of a prompt would be equal", remedy)


def _length(said: Said) -> Iterator[Fault]:
    if said.says("train.epochs") and said.says("train.steps"):
        yield Fault("train.steps", "both train.epochs and train.steps", "keep one of them")
    warmup, steps = said.get("train.warmup", 0), said.get("train.steps")
    if isinstance(warmup, float) and warmup > 1 and not warmup.is_integer():
        remedy = "write a share below 1, or a whole number of steps"
        yield Fault("train.warmup", f"{warmup} is neither a share nor a number of steps", remedy)
    if isinstance(warmup, int | float) and isinstance(steps, int) and warmup > steps:
        yield Fault("train.warmup", f"{warmup} steps of {steps}", "warm up for fewer steps")
    if said.get("data.overlong") == "split" and said.get("method.name") != "pretrain":
        remedy = "write error, drop or truncate"
        yield Fault("data.overlong", "only pretrain can split a row", remedy)
    if said.get("data.train") == []:
        yield Fault("data.train", "an empty list", "write a path, or at least one set of rows")


def _measures(said: Said) -> Iterator[Fault]:
    until = said.get("train.until")
    named = {f"train.until.{name}": name for name in until} if isinstance(until, Mapping) else {}
    if named and said.says("data.eval") and not said.says("eval.every"):
        remedy = "write eval.every: the steps between two of them"
        yield Fault("train.until", "nothing is measured before the end", remedy)
    if isinstance(best := said.get("checkpoint.best"), str):
        named["checkpoint.best"] = best
    for path, name in named.items():
        if name not in MEASURES:
            known = ", ".join(MEASURES)
            yield Fault(path, f"'{name}' is not a measure", f"write one of {known}")
        elif missing := _needs(said, name):
            yield Fault(path, f"'{name}' needs {missing}", "add it, or take another measure")


def _needs(said: Said, measure: str) -> str:
    """Return what a measure needs and the recipe does not say, or nothing."""
    section, method = MEASURES[measure], said.get("method.name")
    if section == "answers":
        pairs = method in PAIRED or isinstance(said.get("data.eval"), str)
        return "" if pairs and said.says("data.eval") else "data.eval with pairs, or a pool there"
    if section == "dpo":
        if method != "dpo":
            return "method.name: dpo (elsewhere it is eval.loss)"
        section = ""
    if method == "reward" and (section or measure == "eval.perplexity"):
        return "a model of answers, and a reward model writes none"
    if section and method == "pretrain":
        return "a method that answers prompts, and pretrain does not"
    if section == "sample" and method == "dft":
        return "a method whose `sample` is for held-out prompts, and dft's is for negatives"
    sections = {"": ["data.eval"], "verify": ["data.eval", "verify"]}
    needed = sections.get(section, ["data.eval", "verify", "sample"])
    missing = [path for path in needed if not said.says(path)]
    if not missing and section == "sample" and said.get("sample.temperature", 1.0) == 0:
        missing = ["a sample.temperature above 0"]
    return " and ".join(missing)
