"""Sums and means over masks, as sums and counts that join exactly over parts of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean as a sum and a count: joined over micro-batches and ranks it stays exact."""

    total: Tensor
    """Scalar, detached: the sum of what is averaged."""
    count: Tensor
    """Scalar: over how many."""


def masked_mean(x: Tensor, mask: Tensor) -> Mean:
    """Return the mean of ``x`` where ``mask`` (bool, same shape) holds.

    >>> import torch
    >>> masked_mean(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False]))
    Mean(total=tensor(4., dtype=torch.float64), count=tensor(2))
    """
    return Mean(x.detach().where(mask, 0.0).double().sum(), mask.sum())


def answer_sum(x: Tensor, mask: Tensor) -> Tensor:
    """Sum x [B, K, T] over the tokens of each answer where ``mask`` holds: [B, K]; 0 if none is."""
    return x.where(mask, 0.0).sum(-1)


def answer_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x [B, K, T] over the tokens of each answer, as ``answer_sum``: [B, K]; 0 of none."""
    return answer_sum(x, mask) / mask.sum(-1).clamp(min=1)
