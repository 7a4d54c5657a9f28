"""What is compared on two-digit sums: settings, methods and their constants, and what was tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

MEASURES = {
    "exact_match": "exact match, greedy",
    "exact_match_sampled": "exact match, sampled",
    "reward_accuracy": "reward accuracy",
    "reward_hardest": "above all negatives",
}
"""Figures of ``ftkit eval`` that are compared, all of them shares."""


@dataclass(frozen=True)
class Setting:
    """How many sums are learnt from after the start."""

    name: str
    title: str
    rows: int | None
    """None = all."""
    answers: int
    """Of the start model to each of them, for the pool."""


@dataclass(frozen=True)
class Method:
    """A method with its constants."""

    command: str
    told: str
    """The constants in short."""
    overrides: Sequence[str]
    temperature: float | None = None
    """At which its negatives were sampled; None = it has none."""


SETTINGS = (Setting("all", "8,954 sums", None, 4), Setting("few", "1,000 sums", 1000, 8))


def sft(lr: float = 2e-3) -> Method:
    """Return SFT at a learning rate."""
    return Method("sft", f"sft, lr {lr:g}", (f"train.lr={lr}",))


def dft(
    tau: float,
    gamma: float,
    *,
    score: str = "log_likelihood",
    denominator: str = "prompt",
    lr: float = 2e-3,
    temperature: float = 1.0,
    negatives: int = 2,
) -> Method:
    """Return DFT, or DFT2 where there is no denominator, with its constants."""
    constants = {
        "tau": tau,
        "gamma": gamma,
        "score": score,
        "denominator": denominator,
        "negatives": negatives,
    }
    name = "dft2" if denominator == "none" else "dft"
    of = "mean, " if score == "mean_log_likelihood" else ""
    told = f"{name}, {of}τ {tau:g}, γ {gamma:g}, T {temperature:g}, m {negatives}, lr {lr:g}"
    said = (*(f"method.{key}={value}" for key, value in constants.items()), f"train.lr={lr}")
    return Method("dft", told, said, temperature)


dft2 = partial(dft, denominator="none")
"""DFT2, by default on the raw log-likelihood."""


def published(lr: float = 2e-3) -> tuple[Method, Method]:
    """Return DFT and DFT2 with the constants of the published runs, but for the learning rate."""
    return dft(1.0, 0.85, lr=lr), dft2(0.3, 0.9, score="mean_log_likelihood", lr=lr)


METHODS: Mapping[str, Mapping[str, Method]] = {
    "all": {
        "sft": sft(),
        "dft": dft(0.5, 0.3),
        "dft2": dft2(1.0, 0.3),
        "dft*": published()[0],
        "dft2*": published()[1],
    },
    "few": {
        "sft": sft(),
        "dft": dft(0.5, 0.1, temperature=0.5),
        "dft2": dft2(1.0, 0.1, temperature=0.5),
    },
}
"""What is reported in each setting; ``sft`` is what the others are compared with, and a star marks
the constants of the published runs."""

SEARCH: Mapping[str, Sequence[Method]] = {
    "all": (
        *map(sft, (1e-3, 2e-3, 3e-3)),
        dft(1.0, 0.3),
        dft(0.5, 0.3),
        dft(1.0, 0.85, temperature=0.5),
        dft2(1.0, 0.3),
        dft2(1.0, 0.3, lr=3e-3),
        dft2(1.0, 0.3, negatives=4),
        dft2(1.0, 0.3, temperature=0.5),
        dft2(1.0, 0.85),
        dft2(1.0, 0.85, temperature=0.5),
    ),
    "few": (
        *map(sft, (5e-4, 1e-3, 2e-3, 3e-3, 4e-3)),
        published()[0],
        *(published(lr)[1] for lr in (5e-4, 1e-3, 2e-3)),
        dft(1.0, 0.01),
        dft(1.0, 0.1),
        dft(0.5, 0.1),
        dft(1.0, 0.1, temperature=0.5),
        dft(0.5, 0.1, temperature=0.5),
        dft2(1.0, 0.01),
        dft2(0.5, 0.1),
        dft2(2.0, 0.01),
        dft2(1.0, 0.1, temperature=0.5),
        dft2(1.0, 0.3, temperature=0.5),
        dft2(2.0, 0.1, temperature=0.5),
        dft2(1.0, 0.1, temperature=0.5, lr=3e-3),
        dft2(1.0, 0.1, temperature=0.5, negatives=4),
    ),
}
"""What was tried in each setting, with the first of the search's seeds."""

AGAIN: Mapping[str, Sequence[Method]] = {
    "all": (*map(sft, (2e-3, 3e-3)), dft(0.5, 0.3), dft2(1.0, 0.3)),
    "few": (sft(), dft(0.5, 0.1, temperature=0.5), dft2(1.0, 0.1, temperature=0.5)),
}
"""What was tried with the others as well."""
