"""What a source is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftkit.core.group import Group


class Source(ABC):
    """Where the groups of each step come from.

    What was given beforehand is a function of the step alone.  What is sampled on the way is not,
    and has a state for checkpoints, metrics, and answers to be written down.
    """

    @abstractmethod
    def groups(self, step: int) -> Sequence[Group]:
        """Return this rank's groups of a step, counted from 1; steps are asked for in order."""

    def told(self) -> Mapping[str, float]:
        """Return metrics of what was sampled for the newest step; each is told once."""
        return {}

    def samples(self) -> Sequence[Mapping[str, Any]]:
        """Return answers that were sampled for the newest step, for the log; each comes once."""
        return ()

    def state(self) -> dict[str, Any] | None:
        """Return what a checkpoint must hold of this rank, as JSON; None = nothing."""
        return None

    def load(self, states: Sequence[dict[str, Any]]) -> None:
        """Take back what all ranks had, however many there were."""
        del states
