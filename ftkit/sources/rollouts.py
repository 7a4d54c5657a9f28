"""Groups that the policy answers itself, as it learns: rollouts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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
    from ftkit.sources.given import Rows


@dataclass
class Rollouts(Source):
    """Prompts in a seeded order, answered by the present policy, judged, and cut into mini-batches.

    A rollout is of ``prompts`` times ``updates`` prompts.  Each of its mini-batches is one step;
    with ``epochs`` it is gone through several times, each time in another order.  A checkpoint
    within a rollout holds it, so that a resumed run learns from the same answers.
    """

    sets: Sequence[Rows]
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
    held: list[Group] = field(default_factory=list)
    """The newest rollout."""
    _told: dict[str, float] = field(default_factory=dict)
    _samples: list[dict[str, Any]] = field(default_factory=list)

    def groups(self, step: int) -> Sequence[Group]:
        """Return this rank's groups of a step; the first of a rollout has all of it sampled."""
        number, place = divmod(step - 1, self.updates * self.epochs)
        if self.rollout != number + 1:
            self._roll(number + 1, step)
        epoch, part = divmod(place, self.updates)
        order = self._shuffled(epoch)
        return [self.held[i] for i in order[part :: self.updates] or order[:1]]

    def told(self) -> Mapping[str, float]:
        """Return what the newest rollout came to, in the step that it was sampled for."""
        told, self._told = self._told, {}
        return told

    def samples(self) -> Sequence[Mapping[str, Any]]:
        """Return some of the newest rollout's groups, in the step that it was sampled for."""
        samples, self._samples = self._samples, []
        return samples

    def state(self) -> dict[str, Any]:
        """Return the newest rollout and how many prompts were asked before."""
        return {
            "rollout": self.rollout,
            "asked": self.asked,
            "held": [group.to_json() for group in self.held],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take a rollout back."""
        self.rollout, self.asked = state["rollout"], state["asked"]
        self.held = [Group.from_json(row) for row in state["held"]]

    def _shuffled(self, epoch: int) -> list[int]:
        """Return the order of the rollout's groups in one pass over them."""
        if self.updates == 1:
            return list(range(len(self.held)))
        seed = [self.order.seed, self.rollout, epoch]
        stream = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
        order: list[int] = stream.permutation(len(self.held)).tolist()
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
        told |= self.asking.report(fresh)
        if self.drop:
            told["dropped"] = sum(not is_mixed(group) for group in fresh) / max(len(fresh), 1)
        told["seconds"] = round(time.perf_counter() - start, 6)
        self._told = told
        version = self.asking.policy.version
        self._samples = [
            {"step": step, "decoding": "rollout", "version": version, **group.to_json()}
            for group in fresh[: self.logged]
        ]

    def _found(self, wanted: int) -> tuple[list[Group], list[Group]]:
        """Return the groups to learn from, and all that were asked."""
        first = fresh = self._ask(wanted)
        if not self.drop:
            return fresh, fresh
        kept = [group for group in fresh if is_mixed(group)]
        for _ in range(self.refill):
            missing = wanted - self.world.gather([len(kept)])[0] * self.world.size
            if missing <= 0:
                break
            more = self._ask(missing)
            fresh = fresh + more
            kept += [group for group in more if is_mixed(group)]
        return kept or first, fresh  # a run goes on where there is nothing to learn

    def _ask(self, count: int) -> list[Group]:
        """Have this rank's share of the next prompts answered and judged."""
        rows = [
            (self.asked + i, self.sets[s][row])
            for i, (s, row) in enumerate(self.order.rows_from(self.asked, count))
        ]
        self.asked += count
        return self.asking.answered(rows[self.world.rank :: self.world.size])


def is_mixed(group: Group) -> bool:
    """Whether a group's answers differ in reward."""
    batch = collate([group])
    return bool(mixed(batch.reward, batch.present)[0])
