"""Trust region policy optimization: the best step within a KL, by the curvature of that KL."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ftkit.core.advantages import Scale, group_advantage, mixed
from ftkit.core.ratio import ratio_of
from ftkit.core.reduce import masked_mean
from ftkit.objectives.base import Kind, Loss, Objective, Unit

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.core.batch import Batch


class TRPO(Objective):
    r"""Maximize  L(w) = mean over tokens of ρ_t A  subject to  mean KL(π_old, π) <= δ.

    ρ_t = π(y_t | x, y_<t) / π_old(y_t | x, y_<t); A is the advantage of the answer among the
    answers to its prompt, as in grpo.  The KL is that of the whole distribution of the next token,
    in nats, and its mean is over the same tokens.  One update a rollout: with g = ∇L and F the
    Hessian of the mean KL, both at π_old,

        x ≈ (F + λ)^-1 g  by conjugate gradients,    step = (2 δ / x^T F x)^(1/2) x,

    times the first of 1, c, c^2, ... for which L rises and the KL is at most δ; none, if there is
    no such one.  Probabilities are those of softmax(logits / T).

    Source: the seed, section on TRPO; Schulman et al., 2015 (arXiv:1502.05477), appendix C.
    """

    about: ClassVar[str] = "Trust Region Policy Optimization: natural gradients, KL <= δ each step"
    kind: ClassVar[Kind] = "rollouts"

    name: Literal["trpo"]
    delta: float = Field(0.01, gt=0)
    """δ, in nats a token."""
    advantage: Scale = "sigma"
    """What r - mean is divided by: `sigma`, the group's deviation; `sample_sigma`, with k - 1 in
    the place of k; or `none`."""
    cg_steps: int = Field(10, gt=0)
    """Iterations of conjugate gradients at most; each costs two passes forward and one back."""
    cg_tolerance: float = Field(1e-3, ge=0, lt=1)
    """They end as soon as the residual is so small a part of g."""
    damping: float = Field(0.01, gt=0)
    """λ, in units of F's eigenvalues: how much directions count in which the KL hardly bends."""
    shrink: float = Field(0.5, gt=0, lt=1)
    """c: by what a step that is refused is shortened."""
    tries: int = Field(10, gt=0)
    """How many lengths are tried; then the weights stay as they were."""

    @property
    def unit(self) -> Unit:
        """Every token counts alike."""
        return "token"

    def loss(self, logp: Tensor, batch: Batch) -> Loss:
        """Return -ρ_t A of each token [B, K, T]; their mean is -L."""
        logp = logp.double()
        a = group_advantage(batch.reward, batch.present, self.advantage)[..., None]
        rho = ratio_of(logp, batch.old(logp))
        some = batch.present.any(-1)
        metrics = {
            "reward": masked_mean(batch.reward, batch.present),
            "mixed": masked_mean(mixed(batch.reward, batch.present).double(), some),
            "entropy": masked_mean(-logp * rho, batch.mask),
        }
        return Loss(-(rho * a).where(batch.mask, 0.0), metrics)
