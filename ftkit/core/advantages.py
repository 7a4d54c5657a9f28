"""How much better than expected: of an answer among its group, of a token by a critic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ftkit.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Scale = Literal["sigma", "sample_sigma", "none"]
"""What the advantages of a group are divided by: its standard deviation, the unbiased one
(k - 1 in the place of k), or nothing."""

ALIKE = 1e-6
"""Rewards no further apart than this, beside the largest of them, are equal: rounding is not
a reason to learn."""


def group_advantage(reward: Tensor, present: Tensor, scale: Scale = "sigma") -> Tensor:
    """Return (r - mean) / σ among the answers to each prompt: float64 [B, K].

    0 where a group's rewards are all alike, where there is one answer, and where there is none.

    Source: the seed, equation (grpo); ``none`` is Dr. GRPO's (arXiv 2503.20783).

    Args:
        reward: [B, K].
        present: bool [B, K].
        scale: what it is divided by.

    >>> reward = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    >>> group_advantage(reward, reward >= 0)
    tensor([[ 1.7321, -0.5774, -0.5774, -0.5774]], dtype=torch.float64)
    """
    r = reward.double().where(present, 0.0)
    n = present.sum(-1, keepdim=True)
    centered = (r - r.sum(-1, keepdim=True) / n.clamp(min=1)).where(present, 0.0)
    centered = centered.where(mixed(reward, present)[..., None], 0.0)
    if scale == "none":
        return centered
    freedom = n if scale == "sigma" else n - 1
    sigma = (centered.square().sum(-1, keepdim=True) / freedom.clamp(min=1)).sqrt()
    return centered / sigma.where(sigma > 0, 1.0)


def mixed(reward: Tensor, present: Tensor) -> Tensor:
    """Whether the answers to a prompt differ in reward, so that there is something to learn: [B].

    Args:
        reward: [B, K].
        present: bool [B, K].
    """
    r = reward.double()
    high = r.masked_fill(~present, -torch.inf).amax(-1)
    low = r.masked_fill(~present, torch.inf).amin(-1)
    size = r.abs().where(present, 0.0).amax(-1)
    return present.any(-1) & (high - low > ALIKE * size.clamp(min=1e-30))


def gae(
    reward: Tensor, value: Tensor, after: Tensor, mask: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Return generalized advantage estimates and returns, each float64 [B, K, T]; 0 off the mask.

    Over the tokens that the policy wrote:  δ_t = r_t + γ V_{t+1} - V_t,  A_t = δ_t + γ λ A_{t+1},
    and the return is A_t + V_t.

    Source: Schulman et al., 2016 (arXiv 1506.02438), equation 16.

    Args:
        reward: [B, K, T], of each token.
        value: [B, K, T], V of the state in which each token was written.
        after: [B, K], V of the state behind the last token: 0 where the policy stopped, what the
            critic says where the length limit cut.
        mask: bool [B, K, T], tokens that the policy wrote.
        gamma: γ, the discount of a step.
        lam: λ: 0 trusts the critic alone, 1 only the rewards.
    """
    reward, value = reward.double(), value.double()
    next_value, running = after.double(), torch.zeros_like(after, dtype=torch.float64)
    advantage = torch.zeros_like(value)
    for t in range(value.shape[-1] - 1, -1, -1):
        here = mask[..., t]
        delta = reward[..., t] + gamma * next_value - value[..., t]
        running = (delta + gamma * lam * running).where(here, running)
        next_value = value[..., t].where(here, next_value)
        advantage[..., t] = running.where(here, 0.0)
    return advantage, (advantage + value).where(mask, 0.0)
