"""How what a run keeps of each number is spread over processes, and between GPU and host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ftkit.objectives import TRPO

if TYPE_CHECKING:
    from ftkit.recipe import Recipe

WIDE = 4
"""Bytes of a float32: of gradients, masters and each average of an optimizer."""

BUCKET = 500_000_000
"""Numbers in the buffer by which DeepSpeed sums gradients, stages 1 to 3, by its default."""

LIVE = 1_000_000_000
"""Numbers that stage 3 holds gathered, at most, by DeepSpeed's default."""


class Place(NamedTuple):
    """Bytes of one process."""

    device: int = 0
    host: int = 0


@dataclass(frozen=True)
class Spread:
    """ZeRO's stage, or one process without it."""

    processes: int
    stage: int | None
    """None = every process holds everything, without DeepSpeed."""
    offload: str
    moments: int
    """Averages that the optimizer keeps of each number."""

    def weights(self, size: int) -> Place:
        """Return where the weights are, of so many bytes; what is gathered is apart."""
        own = self._share(size, 3)
        return Place(0, own) if self.offload == "all" else Place(own)

    def gathered(self, numbers: int, element: int) -> int:
        """Return the bytes of weights that stage 3 holds whole while layers are at work."""
        return min(numbers, LIVE) * element if self.stage == 3 else 0  # noqa: PLR2004 (the stage)

    def gradients(self, numbers: int) -> Place:
        """Return where the gradients are, summed in float32."""
        own = self._share(numbers * WIDE, 2)
        bucket = min(numbers, BUCKET) * WIDE if self.stage else 0
        if self.offload == "none":
            return Place(own + bucket)
        return Place(bucket, own)

    def optimizer(self, numbers: int, narrow: int) -> Place:
        """Return where masters and averages are.

        Args:
            numbers: that are trained.
            narrow: those that need masters; DeepSpeed keeps masters of all.
        """
        masters = numbers if self.stage else narrow
        own = self._share((masters + self.moments * numbers) * WIDE, 1)
        return Place(own) if self.offload == "none" else Place(0, own)

    def _share(self, size: int, since: int) -> int:
        """Return what one process has of something that is shared from a stage on."""
        shared = self.stage is not None and self.stage >= since
        return -(-size // self.processes) if shared else size


def spread_of(recipe: Recipe, processes: int) -> Spread:
    """Return how a run is spread: one process is without DeepSpeed, unless something is offloaded.

    Args:
        recipe: of the run.
        processes: how many there are.
    """
    parallel, train = recipe.parallel, recipe.train
    moments = 2 if train.optimizer == "adamw" else int(train.momentum > 0)
    if isinstance(recipe.method, TRPO):
        return Spread(processes, None, "none", 0)
    alone = processes == 1 and parallel.offload == "none"
    stage = 1 if parallel.zero is None else parallel.zero
    return Spread(processes, None if alone else stage, parallel.offload, moments)
