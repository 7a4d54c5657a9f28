"""Group relative policy optimization, and the variants that differ from it by constants."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ftkit.core.advantages import Scale, group_advantage, mixed
from ftkit.core.lazy import torch
from ftkit.core.ratio import clipped, kl_to_reference, ratio_of, within
from ftkit.core.reduce import Mean, answer_mean, answer_sum, masked_mean
from ftkit.objectives.base import Kind, Loss, Objective, Unit

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.core.batch import Batch

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "dr_grpo": {"advantage": "none", "length": "constant"},
        "dapo": {"length": "token", "clip_high": 0.28, "drop": True},
        "gpg": {"surrogate": "reinforce", "advantage": "none", "length": "token", "drop": True},
        "gspo": {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4},
        "cispo": {"surrogate": "cispo", "length": "token", "clip_low": 1.0, "clip_high": 4.0},
        "grpo_er": {"entropy": 0.001},
    }
)
"""Published variants, as constants: what the recipe says goes before them."""


class GRPO(Objective):
    r"""Maximize  mean over prompts, their answers and tokens of  f(ρ_t, A) - β KL(π, π_ref).

    ρ_t = π(y_t | x, y_<t) / π_old(y_t | x, y_<t), f(ρ, A) = min(ρ A, clip(ρ, 1 - ε_low, 1 + ε_high)
    A), and A = (r - mean of the group) / σ of the group; 0 where all rewards of a group are equal.
    Both probabilities are those of softmax(logits / T) at the temperature T of the samples.

    ``surrogate: cispo`` maximizes sg[clip(ρ)] A log π, ``reinforce`` A log π; ``ratio: sequence``
    is GSPO's: ρ = exp(mean over t of log ρ_t), the same for all tokens of an answer.  With
    ``entropy`` c, c times the estimate -ρ log π of the entropy is added.

    Source: the seed, equation (grpo); Shao et al., 2024 (arXiv 2402.03300).  Dr. GRPO 2503.20783,
    DAPO 2503.14476, GPG 2504.02546, GSPO 2507.18071, CISPO 2506.13585.
    """

    about: ClassVar[str] = (
        "Group Relative Policy Optimization, with DAPO, Dr. GRPO, GSPO as presets"
    )
    kind: ClassVar[Kind] = "rollouts"

    name: Literal["grpo"]
    preset: Literal["dr_grpo", "dapo", "gpg", "gspo", "cispo", "grpo_er"] | None = None
    """A published variant: sets the constants below that the recipe does not."""
    surrogate: Literal["clip", "cispo", "reinforce"] = "clip"
    """f: `clip` (PPO's minimum), `cispo` (weights are clipped, gradients are not) or `reinforce`
    (no ratio)."""
    advantage: Scale = "sigma"
    """What r - mean is divided by: `sigma`, the group's deviation; `sample_sigma`, with k - 1 in
    the place of k; or `none` (Dr. GRPO)."""
    length: Literal["answer", "token", "constant"] = "answer"
    """The mean over tokens: of each `answer` first, over every `token` of the step alike (DAPO), or
    each answer's sum over tokens, divided by a `constant` (Dr. GRPO)."""
    constant: float = Field(1.0, gt=0)
    """length: constant: what sums over tokens are divided by."""
    ratio: Literal["token", "sequence"] = "token"
    """ρ of each `token`, or one of the whole `sequence` (GSPO)."""
    clip_low: float | None = Field(0.2, gt=0, le=1)
    """ε_low; null = no lower limit."""
    clip_high: float | None = Field(0.2, gt=0)
    """ε_high; null = no upper limit."""
    drop: bool = False
    """Leave out prompts whose answers are all alike in reward, so that they are not counted in the
    mean (DAPO, GPG)."""
    refill: int = Field(0, ge=0)
    """drop: ask at most so many times for other prompts in the place of those left out."""
    truncated: Literal["keep", "mask"] = "keep"
    """Answers that the length limit cut: learn from them, or `mask` them once the group's mean is
    taken."""
    beta: float = Field(0.0, ge=0)
    """β of the KL to the model before training; 0 = none, and no reference model is kept."""
    kl: Literal["ratio_k3", "ratio_k1", "k1", "k2", "k3"] = "ratio_k3"
    """How that KL is estimated.  `ratio_k3` and `ratio_k1` have its gradient, `k2` has where one
    update follows each rollout; `k1` then has none, and `k3` that of the KL the other way round."""
    entropy: float = 0.0
    """Weight of the entropy's estimate."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, said: Any) -> Any:
        known = isinstance(said, dict) and PRESETS.get(str(said.get("preset")))
        return {**known, **said} if known else said

    @property
    def unit(self) -> Unit:
        """Tokens of all prompts alike, or prompts, each the mean of its answers."""
        return "token" if self.length == "token" else "prompt"

    @property
    def keeps_reference(self) -> bool:
        """Whether log-probabilities under the model before training are read."""
        return self.beta > 0

    def loss(self, logp: Tensor, batch: Batch) -> Loss:
        """Return the term of each prompt [B], or of each token [B, K, T]."""
        logp = logp.double()  # sums of many small terms
        a = group_advantage(batch.reward, batch.present, self.advantage)[..., None]
        a = a.masked_fill(batch.truncated[..., None] & (self.truncated == "mask"), 0.0)
        rho = ratio_of(logp, batch.old(logp))
        if self.surrogate == "reinforce":
            gain = a * logp
        elif self.surrogate == "cispo":
            gain = (
                clipped(self._rho(logp, batch), self.clip_low, self.clip_high).detach() * a * logp
            )
        else:
            of = self._rho(logp, batch)
            gain = torch.minimum(of * a, clipped(of, self.clip_low, self.clip_high) * a)
        if self.entropy:
            gain = gain - self.entropy * rho * logp
        if self.beta:
            gain = gain - self.beta * kl_to_reference(logp, batch["reference"], rho, self.kl)
        terms = self._over_tokens(gain, batch)
        return Loss(-terms, self._metrics(logp, a, batch))

    def _rho(self, logp: Tensor, batch: Batch) -> Tensor:
        """Return ρ: [B, K, T], or [B, K, 1] of whole answers."""
        if self.ratio == "token":
            return ratio_of(logp, batch.old(logp))
        s = answer_mean(logp, batch.mask) - answer_mean(batch.old(logp), batch.mask)
        return ratio_of(s, torch.zeros_like(s))[..., None]

    def _over_tokens(self, gain: Tensor, batch: Batch) -> Tensor:
        gain = gain.expand(batch.mask.shape)
        if self.length == "token":
            return gain.where(batch.mask, 0.0)
        if self.length == "answer":
            of_answer = answer_mean(gain, batch.mask)
        else:
            of_answer = answer_sum(gain, batch.mask) / self.constant
        return of_answer.where(batch.present, 0.0).sum(-1) / batch.present.sum(-1).clamp(min=1)

    def _metrics(self, logp: Tensor, a: Tensor, batch: Batch) -> dict[str, Mean]:
        rho, mask = self._rho(logp, batch).detach(), batch.mask
        found = {
            "reward": masked_mean(batch.reward, batch.present),
            "mixed": masked_mean(
                mixed(batch.reward, batch.present).double(), batch.present.any(-1)
            ),
            "entropy": masked_mean(-logp * ratio_of(logp, batch.old(logp)), mask),
            "kl": masked_mean(batch.old(logp) - logp, mask),
        }
        if self.surrogate != "reinforce":
            high = (a > 0) & ~within(rho, None, self.clip_high)
            low = (a < 0) & ~within(rho, self.clip_low, None)
            found["clipped"] = masked_mean((high | low).double().expand(mask.shape), mask)
        if self.beta:
            found["kl_reference"] = masked_mean(
                kl_to_reference(logp, batch["reference"], rho.expand(mask.shape), "k3"), mask
            )
        return found
