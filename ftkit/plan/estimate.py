"""The memory of a run, for one process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ftkit.plan.allocator import kept
from ftkit.plan.models import models_of
from ftkit.plan.parts import (
    LIBRARIES,
    Part,
    answering,
    around,
    beside,
    gradients,
    learning,
    states,
    updating,
)
from ftkit.plan.setting import Setting
from ftkit.plan.spread import spread_of
from ftkit.plan.work import Work, work_of

if TYPE_CHECKING:
    from ftkit.plan.body import Passing
    from ftkit.plan.machine import Machine
    from ftkit.plan.models import Shelf
    from ftkit.recipe import Recipe
    from ftkit.run_data import Data


@dataclass(frozen=True)
class Estimate:
    """What one process holds."""

    parts: tuple[Part, ...]
    work: Work
    part: Passing
    """What goes through the policy at once where that takes most."""

    @cached_property
    def phases(self) -> dict[str, int]:
        """Bytes of all parts in each phase."""
        names = dict.fromkeys(name for part in self.parts for name in part.during)
        return {name: sum(part.during.get(name, 0) for part in self.parts) for name in names}

    @property
    def phase(self) -> str:
        """The phase that takes most."""
        return max(self.phases, key=self.phases.__getitem__)

    @property
    def peak(self) -> int:
        """Bytes in that phase."""
        return self.phases[self.phase]

    @property
    def own(self) -> int:
        """What of it is not the libraries'."""
        libraries = (part.during[self.phase] for part in self.parts if part.name == LIBRARIES)
        return self.peak - sum(libraries)

    @property
    def host(self) -> int:
        """Bytes of the host's memory, beside a GPU."""
        return sum(part.host for part in self.parts)


def estimate(recipe: Recipe, data: Data, machine: Machine, shelf: Shelf) -> Estimate:
    """Return what a run takes.

    Args:
        recipe: of the run.
        data: what it reads.
        machine: where it shall go.
        shelf: models of the recipe's tokenizer that were made for other plans.

    Raises:
        UserError: if a model that it names cannot be made, or what it holds not be counted.
    """
    models = models_of(recipe, shelf)
    work = work_of(recipe, data, machine.processes, streams=models.policy.facts.streams)
    spread = spread_of(recipe, machine.processes)
    parts = [
        (work.first, spread.stage is None),
        *([] if work.later is None else [(work.later, False)]),
    ]
    settings = (
        Setting(recipe, data, machine, models, work, spread, part, fresh) for part, fresh in parts
    )
    return max((_estimate(each) for each in settings), key=lambda each: each.peak)


def _estimate(setting: Setting) -> Estimate:
    """Return what a run takes where its largest part is that of the setting."""
    coming = [*learning(setting), *updating(setting), *answering(setting)]
    going = [gradients(setting), *coming] if setting.fresh else coming
    every = [
        *states(setting),
        *coming,
        *beside(setting),
        *around(setting),
        kept(setting, going),
    ]
    there = (part for part in every if part.host or any(part.during.values()))
    return Estimate(tuple(there), setting.work, setting.part)
