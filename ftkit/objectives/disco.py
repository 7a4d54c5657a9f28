"""Discriminative constrained optimization: right answers above wrong ones, near the old policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ftkit.core.lazy import torch
from ftkit.core.ratio import clipped, k3_of, ratio_of
from ftkit.core.reduce import Mean, answer_mean, log_mean_exp, masked_mean
from ftkit.objectives.base import Kind, Loss, Objective, Unit

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.core.batch import Batch

RULES = 2.0
"""Where the constraint's gradient is so many times the objective's, it is in command."""


class DisCO(Objective):
    r"""Minimize  L(π) + β [KL(π_old, π) - δ]_+^2,  the KL in nats a token.

    With s(y) the mean over its tokens of log π (``log_likelihood``) or of π / π_old
    (``likelihood_ratio``), y a right answer to x and y' a wrong one,

        L1 = mean over x of mean over pairs (y, y') of  ℓ(s(y') - s(y))
        L2 = mean over x of mean over y of  τ log mean over y' of  exp(ℓ(s(y') - s(y)) / τ).

    ℓ is the identity, log(1 + e^t), [1 + t]_+ or [1 + t]_+^2.  L2 is the partial AUC: the lower τ,
    the more the likeliest wrong answers count; L1 <= L2.  Prompts with right answers only, or wrong
    ones only, have no pair and are not counted in L.  The KL is estimated on the tokens of the
    whole mini-batch, of all its answers.  Probabilities are those of softmax(logits / T).

    The published code multiplies ∇KL by β [KL - δ]_+, half of this gradient: its β of 1000 is 500.

    Source: the seed, equations (disco-1), (disco-2), (diso-p); Li et al., 2025 (arXiv 2505.12366).
    """

    about: ClassVar[str] = "Discriminative Constrained Optimization (arXiv 2505.12366)"
    kind: ClassVar[Kind] = "rollouts"

    name: Literal["disco"]
    objective: Literal["L1", "L2"] = "L2"
    """`L1`: the AUC; `L2`: the partial AUC, for when wrong answers are many."""
    tau: float = Field(10.0, gt=0)
    """τ of L2; towards infinity it becomes L1."""
    score: Literal["log_likelihood", "likelihood_ratio"] = "log_likelihood"
    """s(y)."""
    surrogate: Literal["identity", "logistic", "hinge", "squared_hinge"] = "identity"
    """ℓ."""
    trust: Literal["constraint", "kl", "clip", "none"] = "constraint"
    """What keeps π near π_old: the squared hinge; for comparison β KL; the ratios' `clip` (GRPO's,
    only for likelihood_ratio); nothing."""
    delta: float = Field(1e-4, ge=0)
    """δ, in nats a token."""
    beta: float = Field(500.0, ge=0)
    """β of the constraint, or of the KL."""
    kl: Literal["k1", "k3"] = "k1"
    """The estimate of KL(π_old, π): `k1`, the mean of log π_old - log π, or `k3`, which is never
    negative."""
    clip: float = Field(0.2, gt=0, lt=1)
    """trust: clip: ratios of right answers count up to 1 + clip, of wrong ones from 1 - clip on."""
    threshold: float | None = None
    """From which reward on an answer is right; null = rewards must be 0 or 1."""

    @property
    def unit(self) -> Unit:
        """The constraint is on the whole mini-batch."""
        return "batch"

    def loss(self, logp: Tensor, batch: Batch) -> Loss:
        """Return the value for the whole mini-batch: a scalar."""
        logp = logp.double()  # the hinge is a small difference
        old, mask = batch.old(logp), batch.mask
        right = batch.present & (
            batch.reward >= (0.5 if self.threshold is None else self.threshold)
        )
        wrong = batch.present & ~right
        s_right, s_wrong = self._scores(logp, old, mask)
        pair = self._surrogate(s_wrong[:, None, :] - s_right[:, :, None])  # [B, right, wrong]
        both = right.any(-1) & wrong.any(-1)
        of_right = self._over_wrong(pair, wrong[:, None, :].expand(pair.shape))
        of_prompt = of_right.where(right, 0.0).sum(-1) / right.sum(-1).clamp(min=1)
        objective = of_prompt.where(both, 0.0).sum() / both.sum().clamp(min=1)

        k1 = old - logp
        found = k1 if self.kl == "k1" else k3_of(-k1)
        kl = found.where(mask, 0.0).sum() / mask.sum().clamp(min=1)
        penalty = self._penalty(kl)
        metrics = self._metrics(logp, batch, right, both)
        metrics |= {"kl": masked_mean(k1, mask), "kl_k3": masked_mean(k3_of(-k1), mask)}
        if self.trust == "constraint":
            metrics |= self._of_constraint(kl, masked_mean(k1.square(), mask), penalty)
            metrics |= _share(penalty, objective, logp)
        return Loss(objective + penalty, metrics)

    def _scores(self, logp: Tensor, old: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return s(y) as a right and as a wrong answer: [B, K] each."""
        if self.score == "log_likelihood":
            s = answer_mean(logp, mask)
            return s, s
        rho = ratio_of(logp, old)
        if self.trust != "clip":
            s = answer_mean(rho, mask)
            return s, s
        up, down = clipped(rho, None, self.clip), clipped(rho, self.clip, None)
        return answer_mean(up, mask), answer_mean(down, mask)

    def _surrogate(self, t: Tensor) -> Tensor:
        if self.surrogate == "logistic":
            return torch.nn.functional.softplus(t)
        if self.surrogate == "hinge":
            return (1 + t).clamp(min=0)
        return (1 + t).clamp(min=0).square() if self.surrogate == "squared_hinge" else t

    def _over_wrong(self, pair: Tensor, wrong: Tensor) -> Tensor:
        """Return what each answer, as a right one, has against the wrong ones: [B, K]."""
        if self.objective == "L1":
            return pair.where(wrong, 0.0).sum(-1) / wrong.sum(-1).clamp(min=1)
        some = wrong.any(-1)
        safe = wrong | ~some[..., None]  # a prompt without wrong answers must not give 0 / 0
        return (self.tau * log_mean_exp(pair / self.tau, safe)).where(some, 0.0)

    def _penalty(self, kl: Tensor) -> Tensor:
        if self.trust == "constraint":
            return self.beta * (kl - self.delta).clamp(min=0).square()
        return self.beta * kl if self.trust == "kl" else kl.new_zeros(())

    def _metrics(self, logp: Tensor, batch: Batch, right: Tensor, both: Tensor) -> dict[str, Mean]:
        s, there = answer_mean(logp.detach(), batch.mask), batch.present.any(-1)
        wrong = batch.present & ~right
        gap = s.where(right, 0.0).sum(-1) / right.sum(-1).clamp(min=1)
        gap = gap - s.where(wrong, 0.0).sum(-1) / wrong.sum(-1).clamp(min=1)
        rho = ratio_of(logp, batch.old(logp))
        return {
            "reward": masked_mean(batch.reward, batch.present),
            "mixed": masked_mean(both.double(), there),
            "margin": masked_mean(gap, both),
            "entropy": masked_mean(-logp * rho, batch.mask),
        }

    def _of_constraint(self, kl: Tensor, square: Mean, penalty: Tensor) -> dict[str, Mean]:
        """Return how far the policy has gone, whether that counts, and how well it is known."""
        n = square.count.clamp(min=1).double()
        one = (square.count > 0).double()
        variance = (square.total / n - kl.detach().square()).clamp(min=0)
        return {
            "kl_over_delta": Mean(one * kl.detach() / (self.delta or 1.0), one),
            "constrained": Mean(one * (penalty.detach() > 0), one),
            "kl_noise": Mean(one * (variance / n).sqrt(), one),
        }

    def remarks(self) -> tuple[str, ...]:
        """Say what constants do not go together."""
        if self.trust == "clip" and self.score != "likelihood_ratio":
            return (
                "disco with trust: clip clips ratios, and score: log_likelihood has none: nothing "
                "keeps the policy near the one that sampled. Write score: likelihood_ratio",
            )
        return ()

    def advice(self, metrics: Mapping[str, float]) -> str | None:
        """Say when the constraint commands, or cannot be seen (LAWS T6)."""
        share, noise = metrics.get("penalty_share", 0.0), metrics.get("kl_noise", 0.0)
        if share > RULES:
            return (
                f"the constraint's gradient is {share:.3g} times the objective's (KL "
                f"{metrics.get('kl_over_delta', 0.0):.3g} δ): it pulls back more than is learnt."
                "  Lower train.lr, raise method.delta, or lower method.beta"
            )
        if self.trust == "constraint" and noise > 10 * self.delta > 0:
            return (
                f"δ is {self.delta:g} nats a token, and the KL's estimate has a standard error of "
                f"{noise:.2g}: the constraint acts by chance. Raise method.delta, take kl: k3, "
                "or more prompts a step"
            )
        return None


def _share(penalty: Tensor, objective: Tensor, logp: Tensor) -> dict[str, Mean]:
    """Return the size of the penalty's gradient beside the objective's, by log-probabilities."""
    if not logp.requires_grad:
        return {}
    sizes = []
    for value in (penalty, objective):
        (slope,) = torch.autograd.grad(value, logp, retain_graph=True, allow_unused=True)
        sizes.append(logp.new_zeros(()) if slope is None else slope.norm())
    one = (sizes[1] > 0).double()
    return {"penalty_share": Mean(one * sizes[0] / sizes[1].clamp(min=1e-30), one)}
