"""Demonstrations, each with negatives drawn from a pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ftkit.core.source import Source

if TYPE_CHECKING:
    from ftkit.core.group import Group
    from ftkit.data.dataset import Dataset
    from ftkit.data.order import Order
    from ftkit.data.pool import Pool
    from ftkit.parallel.world import World


@dataclass(frozen=True)
class Pooled(Source):
    """The rows of data sets in a seeded order, each with some of its negatives."""

    sets: Sequence[Dataset]
    pool: Pool
    order: Order
    prompts: int
    """Prompts in a step, over all ranks."""
    negatives: int
    """Negatives of each prompt in a step; fewer where the pool has fewer."""
    world: World
    total: int | None = None
    """Rows that the whole run sees, so that the last step may be smaller; None = no end."""

    def groups(self, step: int) -> Sequence[Group]:
        """Return this rank's groups of a step, counted from 1."""
        rows = self.order.rows_of_step(step - 1, self.prompts)
        visits = self.order.visits_of_step(step - 1, self.prompts)
        seen = list(zip(rows, visits, strict=True))
        if self.total is not None:
            seen = seen[: self.total - (step - 1) * self.prompts]
        mine = self.world.dealt([int(self.sets[s].tokens[row]) for (s, row), _ in seen])
        return [self._group(*row, visit) for row, visit in (seen[i] for i in mine)]

    def _group(self, number: int, row: int, visit: int) -> Group:
        group = self.sets[number][row]
        sampled = self.pool.of(group.id).answers[1:]
        chosen = draw(len(sampled), self.negatives, visit, (self.order.seed, number, row))
        return group.with_answers(group.answers[0], *(sampled[i] for i in chosen))


def draw(size: int, count: int, visit: int, key: Sequence[int]) -> list[int]:
    """Return which of a pool's negatives a visit takes.

    One permutation of the pool follows another, each used up before the next begins, and cut into
    visits; where a visit reaches from one into the next, none is taken twice.

    Args:
        size: how many there are.
        count: how many a visit takes; all where there are fewer.
        visit: which one, from 0.
        key: of the permutations.

    >>> [sorted(draw(4, 2, 0, [0]) + draw(4, 2, 1, [0])), len(set(draw(3, 2, 1, [7])))]
    [[0, 1, 2, 3], 2]
    """
    if size <= count:
        return list(range(size))
    start = visit * count
    turn, offset = divmod(start, size)
    order = _permutation(size, key, 0, [])
    for each in range(1, turn + 1):
        order = _permutation(size, key, each, _carried(order, each * size, count))
    taken = order[offset : offset + count]
    if len(taken) == count:
        return taken
    following = _permutation(size, key, turn + 1, taken)
    return taken + following[: count - len(taken)]


def _carried(order: list[int], end: int, count: int) -> list[int]:
    """Return what the visit across a permutation's end takes of it."""
    rest = end % count
    return order[len(order) - rest :] if rest else []


def _permutation(size: int, key: Sequence[int], turn: int, taken: list[int]) -> list[int]:
    """Return one of the permutations, with what a visit has taken already moved to its end."""
    stream = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([*key, turn])))
    order: list[int] = stream.permutation(size).tolist()
    return [i for i in order if i not in taken] + [i for i in order if i in taken]
