"""What a source is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ftkit.core.group import Group


class Source(Protocol):
    """Where the groups of each step come from: a function of the step, with nothing to save."""

    def groups(self, step: int) -> Sequence[Group]:
        """Return this rank's groups of a step, counted from 1."""
