"""What to change in a recipe, or of the machine, so that a run takes less memory."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ftkit.core.errors import UserError
from ftkit.objectives import PPO
from ftkit.plan.estimate import Estimate, estimate
from ftkit.plan.spread import spread_of
from ftkit.recipe import Recipe
from ftkit.recipe.rules import Said, faults_between_sections
from ftkit.samplers.config import VLLMConfig

if TYPE_CHECKING:
    from ftkit.plan.machine import Machine
    from ftkit.plan.models import Shelf
    from ftkit.run_data import Data

LEAST = 0.01
"""What a change must save to be named, in parts of what is not the libraries'."""

MOST = 4
"""So many changes are put together at most."""


@dataclass(frozen=True)
class Change:
    """A change, and what the run takes with it."""

    keys: Mapping[str, Any]
    """What the recipe would say, by dotted path."""
    gpus: int | None = None
    """Or how many GPUs would be taken."""
    same: bool = True
    """Whether it is memory and time alone, and what is learnt stays the same."""

    def __str__(self) -> str:
        """Return it as the command line takes it."""
        said = [f"{key}={_value(value)}" for key, value in self.keys.items()]
        return " ".join([*said, *([] if self.gpus is None else [f"--gpus {self.gpus}"])])

    def joined(self, other: Change) -> Change:
        """Return both."""
        gpus = other.gpus if other.gpus is not None else self.gpus
        return Change({**self.keys, **other.keys}, gpus, self.same and other.same)


@dataclass(frozen=True)
class Outcome:
    """A change with what it comes to."""

    change: Change
    peak: int
    """Bytes."""
    saves: int
    """Bytes less than without it."""
    fits: bool


@dataclass(frozen=True)
class Planner:
    """Plans a recipe and others that differ from it in some keys."""

    tree: Mapping[str, Any]
    """The recipe with all its defaults (``Loaded.resolved``)."""
    recipe: Recipe
    data: Data
    machine: Machine
    shelf: Shelf

    def estimate(self, change: Change | None = None) -> Estimate | None:
        """Return what the run takes with a change; None where no recipe may say it.

        Raises:
            UserError: if, without a change, a model cannot be made.
        """
        if change is None:
            return estimate(self.recipe, self.data, self.machine, self.shelf)
        recipe = _legal(self.tree, change.keys)
        if recipe is None:
            return None
        machine = self.machine
        if change.gpus is not None:
            host = None if machine.host is None else machine.host * machine.processes // change.gpus
            machine = replace(machine, processes=change.gpus, host=host)
        try:
            return estimate(recipe, self.data, machine, self.shelf)
        except UserError:  # such as adapters of random weights
            return None

    def changes(self, now: Estimate) -> list[Outcome]:
        """Return the changes that save something, the one that saves most first."""
        found = (self._mildest(Change({}), family, now) for family in self._families(now))
        useful = [each for each in found if each is not None and each.saves > LEAST * now.own]
        return sorted(useful, key=lambda each: -each.saves)

    def together(self, now: Estimate) -> Outcome | None:
        """Return changes that make the run fit and leave what is learnt as it is; None if none do.

        The one that saves most comes first, then the one that saves most beside it.
        """
        so_far = Change({})
        for _ in range(MOST):
            joined = [
                self._mildest(so_far, family, now)
                for family in self._families(now)
                if family[0].same
                and family[0].gpus is None
                and not any(set(each.keys) & set(so_far.keys) for each in family)
            ]
            found = [each for each in joined if each is not None]
            fitting = [each for each in found if each.fits]
            if not found or fitting:
                return max(fitting, key=lambda each: each.saves, default=None)
            so_far = max(found, key=lambda each: each.saves).change
        return None

    def _mildest(self, base: Change, family: Sequence[Change], now: Estimate) -> Outcome | None:
        """Return the first change of a family that makes the run fit, else the one that saves most.

        None where no recipe may say any of them beside what was changed before.
        """
        best: Outcome | None = None
        for change in family:
            joined = base.joined(change)
            found = self.estimate(joined)
            if found is None:
                continue
            fits = found.peak <= self.machine.memory
            outcome = Outcome(joined, found.peak, now.peak - found.peak, fits)
            if best is None or outcome.saves > best.saves:
                best = outcome
            if fits:
                break
        return best

    def _families(self, now: Estimate) -> Iterator[list[Change]]:
        """Yield what could be changed: values of the same keys, the milder first."""
        recipe = self.recipe
        if not recipe.model.checkpointing:
            yield [Change({"model.checkpointing": True})]
        micro = min(recipe.train.micro_tokens, now.part.tokens)
        smaller = [micro // 2**i for i in range(1, micro.bit_length())]
        useful = [each for each in smaller if each > now.work.longest] + [now.work.longest]
        if now.work.longest < micro:  # a longer row goes through alone
            yield [Change({"train.micro_tokens": each}) for each in useful]
        yield from self._parallel()
        yield from self._answers()
        yield from self._other_learning()

    def _parallel(self) -> Iterator[list[Change]]:
        spread, count = spread_of(self.recipe, self.machine.processes), self.machine.processes
        stages = range((spread.stage or 0) + 1, 4)
        if count > 1 and stages:
            yield [Change({"parallel.zero": stage}) for stage in stages]
        if self.machine.kind == "cpu":
            return
        if spread.offload == "none":
            yield [Change({"parallel.offload": "optimizer"})]
        if spread.offload != "all":
            yield [Change({"parallel.zero": 3, "parallel.offload": "all"})]
        yield [Change({}, gpus=count * times) for times in (2, 4, 8)]

    def _answers(self) -> Iterator[list[Change]]:
        """Yield what concerns vLLM in this process."""
        sample = self.recipe.sample
        if sample is None or sample.engine != "vllm" or self.machine.kind == "cpu":
            return
        how = sample.vllm or VLLMConfig()
        if how.server is not None:
            return
        if not how.sleep:
            yield [Change({"sample.vllm.sleep": True})]
        shares = [round(how.memory * part, 2) for part in (0.75, 0.5)]
        yield [Change({"sample.vllm.memory": share}) for share in shares]

    def _other_learning(self) -> Iterator[list[Change]]:
        """Yield changes by which something else is learnt, or from other answers."""
        recipe, sample = self.recipe, self.recipe.sample
        if recipe.model.lora is None and recipe.model.path is not None:
            yield [Change({"model.lora": {"r": 16}}, same=False)]
        if recipe.model.dtype == "float32":
            yield [Change({"model.dtype": "bfloat16"}, same=False)]
        if isinstance(recipe.method, PPO) and recipe.method.critic == "own":
            yield [Change({"method.critic": "shared"}, same=False)]
        if recipe.method.kind == "rollouts" and sample is not None and sample.max_tokens > 1:
            yield [Change({"sample.max_tokens": sample.max_tokens // 2}, same=False)]


def _legal(tree: Mapping[str, Any], keys: Mapping[str, Any]) -> Recipe | None:
    """Return the recipe with other values; None where the rules refuse it."""
    changed = copy.deepcopy(dict(tree))
    for path, value in keys.items():
        *sections, key = path.split(".")
        here = changed
        for section in sections:
            if here.get(section) is None:
                here[section] = {}
            here = here[section]
        here[key] = value
    if any(faults_between_sections(Said(changed))):
        return None
    try:
        return Recipe.model_validate(changed)
    except ValidationError:
        return None


def _value(value: Any) -> str:
    """Return a value as the command line takes it.

    >>> [_value(x) for x in (True, 8192, "all", {"r": 16})]
    ['true', '8192', 'all', '{r: 16}']
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_value(each)}" for key, each in value.items()) + "}"
    return str(value)
