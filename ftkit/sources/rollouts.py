"""Groups that the policy answers itself, as it learns: rollouts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ftkit.core.advantages import mixed
from ftkit.core.batch import collate
from ftkit.core.errors import RunError
from ftkit.core.group import Group
from ftkit.core.source import Source
from ftkit.samplers.base import awake

if TYPE_CHECKING:
    from ftkit.data.order import Order
    from ftkit.parallel.world import World
    from ftkit.sources.asking import Asking


class Prompts(Protocol):
    """Rows in a fixed order."""

    def __getitem__(self, row: int, /) -> Group:
        """Return one."""
        ...


@dataclass
class Rollouts(Source):
    """Prompts in a seeded order, answered by the present policy, judged, and cut into mini-batches.

    A rollout is of ``prompts`` times ``updates`` prompts.  Each of its mini-batches is one step;
    with ``epochs`` it is gone through several times, each time in another order.  A checkpoint
    within a rollout holds it, so that a resumed run learns from the same answers.

    A rollout is laid out in blocks of ``updates`` groups, of which each mini-batch takes one.
    Ranks are dealt whole blocks, so that every mini-batch is made of the same groups, and of about
    as many of each rank's, whatever their number.
    """

    sets: Sequence[Prompts]
    order: Order
    prompts: int
    """Prompts in a step, over all ranks."""
    world: World
    asking: Asking
    updates: int = 1
    """Mini-batches of a rollout."""
    epochs: int = 1
    """Times that each of them is learnt from."""
    drop: bool = False
    """Leave out prompts whose answers are all alike in reward."""
    refill: int = 0
    """Times to ask other prompts in their place, at most."""
    logged: int = 16
    """Prompts of a rollout that are written down with their answers."""
    rollout: int = 0
    """Of how many rollouts the newest is, from 1; 0 = there is none yet."""
    asked: int = 0
    """Prompts asked so far, over all ranks."""
    count: int = 0
    """Places in the newest rollout, over all ranks."""
    held: dict[int, Group] = field(default_factory=dict)
    """This rank's groups of the newest rollout, by place."""
    _told: dict[str, float] = field(default_factory=dict)
    _samples: list[dict[str, Any]] = field(default_factory=list)

    def groups(self, step: int) -> Sequence[Group]:
        """Return this rank's groups of a step; the first of a rollout has all of it sampled."""
        number, at = divmod(step - 1, self.updates * self.epochs)
        if self.rollout != number + 1:
            self._roll(number + 1, step)
        epoch, part = divmod(at, self.updates)
        places = (place for place in self._mini_batch(epoch, part) if place in self.held)
        return [self.held[place] for place in places]

    def told(self) -> Mapping[str, float]:
        """Return what the newest rollout came to, in the step that it was sampled for."""
        told, self._told = self._told, {}
        return told

    def samples(self) -> Sequence[Mapping[str, Any]]:
        """Return some of the newest rollout's groups, in the step that it was sampled for."""
        samples, self._samples = self._samples, []
        return samples

    def state(self) -> dict[str, Any]:
        """Return this rank's part of the newest rollout, and how many prompts were asked before."""
        return {
            "rollout": self.rollout,
            "asked": self.asked,
            "count": self.count,
            "held": {place: group.to_json() for place, group in self.held.items()},
        }

    def load(self, states: Sequence[dict[str, Any]]) -> None:
        """Take a rollout back, of whatever number of ranks."""
        one = states[0]
        self.rollout, self.asked, self.count = one["rollout"], one["asked"], one["count"]
        rows = {int(place): row for state in states for place, row in state["held"].items()}
        self.held = {p: Group.from_json(row) for p, row in sorted(rows.items()) if self._is_mine(p)}

    def _is_mine(self, place: int) -> bool:
        return place // self.updates % self.world.size == self.world.rank

    def _mini_batch(self, epoch: int, part: int) -> Iterator[int]:
        """Yield the places of a mini-batch, one in each block."""
        if self.count < self.updates:  # too few for each to have its own
            yield from [self._shuffled(epoch, 0)[part] % self.count] if self.count else ()
            return
        for block in range(-(-self.count // self.updates)):
            place = block * self.updates + self._shuffled(epoch, block)[part]
            if place < self.count:
                yield place

    def _shuffled(self, epoch: int, block: int) -> list[int]:
        """Return which group of a block goes to which mini-batch, in one pass over the rollout."""
        if self.updates == 1:
            return [0]
        seed = [self.order.seed, self.rollout, epoch, block]
        stream = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
        order: list[int] = stream.permutation(self.updates).tolist()
        return order

    def _roll(self, number: int, step: int) -> None:
        start = time.perf_counter()
        before = self.asked
        try:
            with awake(self.asking.sampler):
                found, fresh = self._found(self.prompts * self.updates)
        except RunError:
            self.asked = before  # a run that goes on asks them again
            raise
        self.rollout = number
        self.held, told = self.asking.prepared(found)
        sums = self.asking.report(list(fresh.values()))
        if self.drop:
            alike = sum(not is_mixed(group) for group in fresh.values())
            sums["dropped"] = float(alike), float(len(fresh))
        told |= self.world.means(sums)
        told["seconds"] = round(time.perf_counter() - start, 6)
        self._told = told
        about = {"step": step, "decoding": "rollout", "version": self.asking.policy.version}
        logged = [(p, group.to_json()) for p, group in fresh.items() if p < self.logged]
        self._samples = [{**about, **row} for _, row in sorted(self.world.gather(logged), key=_at)]

    def _found(self, wanted: int) -> tuple[dict[int, Group], dict[int, Group]]:
        """Return the groups to learn from, and all that were asked; this rank's, by place."""
        fresh = self._ask(wanted, 0)
        self.count, first = wanted, fresh
        if not self.drop:
            return fresh, fresh
        kept = {place: group for place, group in fresh.items() if is_mixed(group)}
        total = sum(self.world.gather([len(kept)]))
        asked = wanted
        for _ in range(self.refill):
            if total >= wanted:
                break
            more = self._ask(wanted - total, asked)
            asked += wanted - total
            fresh = fresh | more
            kept |= {place: group for place, group in more.items() if is_mixed(group)}
            total = sum(self.world.gather([len(kept)]))
        if not total:  # a run goes on where there is nothing to learn
            return first, fresh
        self.count = total
        return self._moved_up(kept), fresh

    def _moved_up(self, kept: Mapping[int, Group]) -> dict[int, Group]:
        """Close the gaps between places, each group going to the rank that its new place is of."""
        places = sorted(self.world.gather(list(kept)))
        new = {place: at for at, place in enumerate(places)}
        mine = {new[place]: group for place, group in kept.items()}
        if self.world.size > 1:
            leaving = [(at, group) for at, group in mine.items() if not self._is_mine(at)]
            mine |= dict(self.world.gather(leaving))
        return {at: group for at, group in sorted(mine.items()) if self._is_mine(at)}

    def _ask(self, count: int, first: int) -> dict[int, Group]:
        """Have this rank's share of the next prompts answered and judged; places from ``first``."""
        rows = [
            (first + i, (self.asked + i, self.sets[s][row]))
            for i, (s, row) in enumerate(self.order.rows_from(self.asked, count))
        ]
        self.asked += count
        mine = [row for row in rows if self._is_mine(row[0])]
        groups = self.world.together(lambda: self.asking.answered([row for _, row in mine]))
        return {place: group for (place, _), group in zip(mine, groups, strict=True)}


def _at(row: tuple[int, Any]) -> int:
    return row[0]


def is_mixed(group: Group) -> bool:
    """Whether a group's answers differ in reward."""
    batch = collate([group])
    return bool(mixed(batch.reward, batch.present)[0])
