"""Proximal policy optimization: the clipped surrogate, with a critic's advantages."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ftkit.core.lazy import torch
from ftkit.core.ratio import clipped, kl_to_reference, ratio_of, within
from ftkit.core.reduce import Mean, masked_mean
from ftkit.objectives.base import Kind, Loss, Objective, Unit
from ftkit.objectives.value import of_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.core.batch import Batch


class PPO(Objective):
    r"""Maximize  mean over tokens of  min(ρ_t A_t, clip(ρ_t, 1 - ε, 1 + ε) A_t).

    ρ_t = π(y_t | x, y_<t) / π_old(y_t | x, y_<t).  A_t is the generalized advantage estimate
    (``core.advantages.gae``) from a critic's values V when the answers were sampled, less its mean
    over the rollout's tokens and divided by its deviation.  The reward of an answer comes with its
    last token, and each token costs β (log π_old - log π_ref) (``kl_in: reward``); with ``kl_in:
    loss`` β KL(π, π_ref) is subtracted from the objective instead.  V is 0 behind an answer that
    the policy ended, and what the critic says where the length limit cut it.  Probabilities are
    those of softmax(logits / T).

    The critic minimizes its own loss (``objectives.value``) beside it.

    Source: the seed, L_PPO and equation (ppo); Schulman et al., 2017 (arXiv 1707.06347), equation
    7; the KL in the reward: Ouyang et al., 2022 (arXiv 2203.02155).
    """

    about: ClassVar[str] = "Proximal Policy Optimization with a critic: RLHF, or verified rewards"
    kind: ClassVar[Kind] = "rollouts"

    name: Literal["ppo"]
    clip: float = Field(0.2, gt=0, lt=1)
    """ε."""
    gamma: float = Field(1.0, ge=0, le=1)
    """γ, the discount of a token."""
    lam: float = Field(0.95, ge=0, le=1)
    """λ of the advantages: 0 trusts the critic alone, 1 the rewards alone."""
    beta: float = Field(0.0, ge=0)
    """β of the KL to the model before training; 0 = none, and no reference model is kept."""
    kl_in: Literal["reward", "loss"] = "reward"
    """Where that KL is: in the `reward` of each token, as in RLHF, or in the `loss`."""
    critic: Literal["own", "shared"] = "own"
    """A model of its `own`, or a head on the policy's body, `shared`, which learns from both
    losses."""
    critic_path: str | None = Field(None, min_length=1)
    """critic: own: the folder or hub name that it starts from, such as a reward model's; null = the
    policy's initial weights, with a head that starts at 0."""
    critic_lr: float | None = Field(None, gt=0)
    """critic: own: its learning rate at its highest; null = `train.lr`."""
    clip_value: float | None = Field(0.2, gt=0)
    """The critic gains nothing by moving a value further than this from what it said when the
    answer was sampled; in units of the reward; null = no limit."""
    value_coef: float = Field(0.5, gt=0)
    """critic: shared: weight of the critic's loss beside the policy's."""

    @property
    def unit(self) -> Unit:
        """Every token counts alike."""
        return "token"

    @property
    def keeps_reference(self) -> bool:
        """Whether log-probabilities under the model before training are read."""
        return self.beta > 0

    @property
    def rewards_kl(self) -> bool:
        """Whether log π_old - log π_ref is a part of the reward."""
        return self.beta > 0 and self.kl_in == "reward"

    def loss(self, logp: Tensor, batch: Batch) -> Loss:
        """Return the term of each token [B, K, T]; reads the column ``advantage``."""
        logp = logp.double()
        rho, a = ratio_of(logp, batch.old(logp)), of_tokens(batch, "advantage")
        gain = torch.minimum(rho * a, clipped(rho, self.clip, self.clip) * a)
        if self.beta and not self.rewards_kl:
            reference = of_tokens(batch, "reference")
            gain = gain - self.beta * kl_to_reference(logp, reference, rho, "ratio_k3")
        return Loss(-gain.where(batch.mask, 0.0), self._metrics(logp, rho.detach(), a, batch))

    def _metrics(self, logp: Tensor, rho: Tensor, a: Tensor, batch: Batch) -> dict[str, Mean]:
        mask = batch.mask
        stopped = (a > 0) & ~within(rho, None, self.clip) | (a < 0) & ~within(rho, self.clip, None)
        found = {
            "reward": masked_mean(batch.reward, batch.present),
            "entropy": masked_mean(-logp * rho, mask),
            "kl": masked_mean(batch.old(logp) - logp, mask),
            "clipped": masked_mean(stopped.double(), mask),
        }
        if self.beta:
            reference = of_tokens(batch, "reference")
            found["kl_reference"] = masked_mean(
                kl_to_reference(logp, reference, rho, "ratio_k3"), mask
            )
        return found
