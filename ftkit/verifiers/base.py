"""What a verifier is: who judges whether an answer is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from ftkit.verifiers.config import Verify

Status = Literal["correct", "incorrect", "unparseable", "timeout", "error"]
"""``unparseable``: the answer says nothing that could be compared; ``error``: the verifier or the
truth is at fault, not the answer."""

STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judgement, and why."""

    status: Status
    reward: float | None
    """1 for correct; 0 for what is not; None where nothing was judged (``timeout``, ``error``)."""
    detail: str = ""
    """What a person reads in the log."""


Verifier = Callable[[str, str], Verdict]
"""(answer, truth) -> verdict: pure, and total, that is, it never raises."""


def build_verifier(config: Verify) -> Verifier:
    """Return the verifier that a recipe names."""
    from ftkit.verifiers.exact import exact

    return exact(config)
