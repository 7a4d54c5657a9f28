"""Groups that were there before the run: documents, demonstrations, pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ftkit.core.source import Source

if TYPE_CHECKING:
    import numpy as np

    from ftkit.core.group import Group
    from ftkit.data.order import Order
    from ftkit.parallel.world import World


class Rows(Protocol):
    """Rows in a fixed order."""

    def __getitem__(self, row: int, /) -> Group:
        """Return one."""
        ...

    @property
    def tokens(self) -> np.ndarray:
        """Int [rows]: the tokens of each, by which ranks are given equally much to do."""
        ...


@dataclass(frozen=True)
class Given(Source):
    """The rows of data sets in a seeded order, dealt among ranks."""

    sets: Sequence[Rows]
    order: Order
    prompts: int
    """Prompts in a step, over all ranks."""
    world: World
    total: int | None = None
    """Rows that the whole run sees, so that the last step may be smaller; None = no end."""

    def groups(self, step: int) -> Sequence[Group]:
        """Return this rank's groups of a step, counted from 1."""
        rows = self.order.rows_of_step(step - 1, self.prompts)
        if self.total is not None:
            rows = rows[: self.total - (step - 1) * self.prompts]
        mine = self.world.dealt([int(self.sets[s].tokens[row]) for s, row in rows])
        return [self.sets[s][row] for s, row in (rows[i] for i in mine)]
