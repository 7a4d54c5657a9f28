"""Every registered method with its constants: what the laws are tested over."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from pydantic import TypeAdapter

from ftkit.core.reduce import answer_mean, masked_mean
from ftkit.objectives import Loss, Method, Objective


@dataclass(frozen=True, eq=False)
class Case:
    constants: dict[str, Any]
    answers: int = 1
    """The most answers to a prompt."""

    @cached_property
    def objective(self) -> Objective:
        return TypeAdapter(Method).validate_python(self.constants)

    def __str__(self) -> str:
        return "-".join(str(value) for value in self.constants.values())


DPO: list[dict[str, Any]] = [
    {},
    {"surrogate": "hinge"},
    {"surrogate": "squared_hinge"},
    {"surrogate": "exponential"},
    {"surrogate": "sigmoid"},
    {"surrogate": "ipo"},
    {"beta": 0.3},
    {"label_smoothing": 0.2},
    {"margin": 0.5},
    {"score": "mean_log_likelihood"},
    {"sft": 0.5},
    {"reference": "none"},
    {"reference": "none", "score": "mean_log_likelihood", "beta": 2.0, "margin": 0.5},
]

DFT: list[dict[str, Any]] = [
    {},
    {"tau": 0.7},
    {"gamma": 1.0},
    {"score": "mean_log_likelihood"},
    {"denominator": "augmented"},
    {"denominator": "sampler"},
    {"denominator": "none"},
    {"u_init": "batch"},
    {"score": "mean_log_likelihood", "denominator": "none", "tau": 0.3, "gamma": 0.9},
]

GRPO: list[dict[str, Any]] = [
    {},
    {"preset": "dr_grpo"},
    {"preset": "dapo"},
    {"preset": "gpg"},
    {"preset": "gspo"},
    {"preset": "cispo"},
    {"preset": "grpo_er"},
    {"surrogate": "cispo"},
    {"surrogate": "reinforce"},
    {"advantage": "sample_sigma"},
    {"advantage": "none"},
    {"length": "token"},
    {"length": "constant"},
    {"length": "constant", "constant": 5.0},
    {"ratio": "sequence"},
    {"clip_low": None},
    {"clip_high": None},
    {"truncated": "mask"},
    {"entropy": 0.1},
    *({"beta": 0.3, "kl": kl} for kl in ("ratio_k3", "ratio_k1", "k1", "k2", "k3")),
]

PPO: list[dict[str, Any]] = [
    {"clip": 0.3},
    {"clip": 0.1},
    {"beta": 0.3, "kl_in": "loss"},
    {"beta": 0.6, "kl_in": "loss"},
    {"beta": 0.6},
]

TRPO: list[dict[str, Any]] = [{}, {"advantage": "none"}, {"advantage": "sample_sigma"}]

NEAR: dict[str, Any] = {"beta": 5.0, "delta": 0.05, "tau": 1.0}

DISCO: list[dict[str, Any]] = [
    {},
    NEAR,
    *(
        {**NEAR, **more}
        for more in (
            {"objective": "L1"},
            {"tau": 0.1},
            {"score": "likelihood_ratio"},
            {"surrogate": "logistic"},
            {"surrogate": "hinge"},
            {"surrogate": "squared_hinge"},
            {"trust": "kl"},
            {"trust": "clip", "score": "likelihood_ratio"},
            {"trust": "clip", "score": "likelihood_ratio", "clip": 0.5},
            {"trust": "none"},
            {"beta": 10.0},
            {"delta": 0.1},
            {"kl": "k3"},
        )
    ),
]

CASES = [
    Case({"name": "pretrain"}),
    Case({"name": "sft"}),
    Case({"name": "sft", "loss": "dynamic"}),
    Case({"name": "sft", "average": "answer"}),
    Case({"name": "sft", "loss": "dynamic", "average": "answer"}),
    Case({"name": "reward"}, answers=2),
    Case({"name": "reward", "center": 0.1}, answers=2),
    *(Case({"name": "dpo", **more}, answers=2) for more in DPO),
    *(Case({"name": "dft", **more}, answers=3) for more in DFT),
    *(Case({"name": "grpo", **more}, answers=4) for more in GRPO),
    *(Case({"name": "ppo", **more}, answers=4) for more in PPO),
    *(Case({"name": "trpo", **more}, answers=4) for more in TRPO),
    *(Case({"name": "disco", **more}, answers=4) for more in DISCO),
]


class Pairwise(Objective):
    """A stand-in for methods whose answers meet: (s_0 - mean of the others)^2 for each prompt."""

    kind: ClassVar[str] = "preferences"
    unit: ClassVar[str] = "prompt"

    def loss(self, logp, batch):
        s = answer_mean(logp, batch.mask)
        others = (s * batch.present)[:, 1:].sum(-1) / batch.present[:, 1:].sum(-1).clamp(min=1)
        return Loss((s[:, 0] - others) ** 2, {"logp": masked_mean(logp, batch.mask)})


class Hinged(Objective):
    """A stand-in for methods whose prompts meet, as in DisCO's hinge: [batch mean - 2]_+^2."""

    kind: ClassVar[str] = "rollouts"
    unit: ClassVar[str] = "batch"

    def loss(self, logp, batch):
        mean = -logp.where(batch.mask, 0.0).sum() / batch.mask.sum()
        return Loss((mean - 2.0).clamp(min=0) ** 2, {"logp": masked_mean(logp, batch.mask)})


ALL = [(case.objective, case.answers, str(case)) for case in CASES] + [
    (Pairwise(), 3, "pairwise"),
    (Hinged(), 3, "hinged"),
]
"""(objective, most answers, name): the registered methods, and two shapes of others to come."""
