"""The ranks among which a batch is dealt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class World(Protocol):
    """What a part may ask of all ranks."""

    rank: int
    """Which of them this one is, from 0."""
    size: int
    """How many there are."""

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of ``x`` over all ranks, the same on each."""


class OneProcess:
    """The world of a run that has one process."""

    rank: int = 0
    size: int = 1

    def sum(self, x: Tensor) -> Tensor:
        """Return ``x``: there is nobody else."""
        return x
