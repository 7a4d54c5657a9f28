"""What a process is doing, and how often it has got on: what a watchdog tells of one that hangs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

WAITING = "waiting for the other ranks"
"""A phase in which no fault of a process's own keeps it from going on."""


@dataclass
class Phase:
    """What is being done now."""

    name: str = "starting"
    step: int = 0
    beats: int = 0
    """Signs of progress so far."""


now = Phase()
"""Of this process."""


def beat() -> None:
    """Give a sign of progress: another batch went through, another token was drawn."""
    now.beats += 1


@contextmanager
def phase(name: str, step: int | None = None) -> Iterator[None]:
    """In it, the process is doing this; behind it, what it did before.

    Args:
        name: in words, such as ``saving``.
        step: of the run; None = the same as before.

    >>> with phase("saving", step=3):
    ...     now.name, now.step
    ('saving', 3)
    """
    before = now.name
    now.name, now.step = name, now.step if step is None else step
    beat()
    try:
        yield
    finally:
        now.name = before
        beat()
