"""Ratios of probabilities, limits on them, and estimates of the KL divergence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ftkit.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

FAR = 20.0
"""Log ratios are held within this of 0: e^20 is as good as infinite, and a float32 still."""

KL = Literal["ratio_k3", "ratio_k1", "k1", "k2", "k3"]


def ratio_of(logp: Tensor, old: Tensor) -> Tensor:
    """Return π / π_old of each token, from log-probabilities of the same shape."""
    return (logp - old).clamp(-FAR, FAR).exp()


def clipped(ratio: Tensor, low: float | None, high: float | None) -> Tensor:
    """Return the ratio held within [1 - low, 1 + high]; a limit that is None does not hold."""
    if low is None and high is None:
        return ratio
    return ratio.clamp(None if low is None else 1 - low, None if high is None else 1 + high)


def within(ratio: Tensor, low: float | None, high: float | None) -> Tensor:
    """Whether a ratio is within its limits: bool, the same shape."""
    inside = torch.ones_like(ratio, dtype=torch.bool)
    if low is not None:
        inside &= ratio >= 1 - low
    if high is not None:
        inside &= ratio <= 1 + high
    return inside


def k3_of(d: Tensor) -> Tensor:
    """Return e^d - 1 - d, never negative: of d = log q - log p under p, an estimate of KL(p, q)."""
    d = d.clamp(-FAR, FAR)
    return d.exp() - 1 - d


def kl_to_reference(logp: Tensor, reference: Tensor, ratio: Tensor, kind: KL) -> Tensor:
    """Estimate KL(π, π_ref) by each sampled token, in nats: the shape of ``logp``.

    With d = log π_ref - log π, k1 = -d, k2 = d²/2, k3 = e^d - 1 - d.  A token that π_old sampled
    stands for π with the weight ``ratio``: ratio k1 and ratio k3 have the KL for their mean and its
    gradient for the mean of theirs; the others have not, all or some of the time.

    Source: Schulman, "Approximating KL divergence", 2020; the gradients by enumeration in a test.

    Args:
        logp: log π, with its graph.
        reference: log π_ref.
        ratio: π / π_old, with its graph.
        kind: which estimate.
    """
    d = (reference - logp).clamp(-FAR, FAR)
    if kind == "k2":
        return d.square() / 2
    if kind in {"k1", "ratio_k1"}:
        return -d if kind == "k1" else -ratio * d
    return k3_of(d) if kind == "k3" else ratio * k3_of(d)
