"""What a rank says of itself to the others: that it lives, what it does, whether it waits."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePath
from types import FrameType

COLLECTIVES = ("torch.distributed.", "deepspeed.comm")
"""Modules in which a thread waits for other ranks."""


@dataclass(frozen=True, slots=True)
class Sign:
    """What a rank said of itself."""

    rank: int
    host: str
    phase: str
    step: int
    waits: bool
    """Whether it waits for other ranks."""
    place: str
    """Where in the code it is."""
    progress: int
    """Another number where it has got on."""
    said: int
    """How often it has said something."""

    def __str__(self) -> str:
        """In words.

        >>> str(Sign(1, "node7", "learning", 3, True, "a.py:1", 10, 2))
        'rank 1 on node7, in step 3: learning'
        """
        return f"rank {self.rank} on {self.host}, in step {self.step}: {self.phase}"

    def to_text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str | bytes) -> Sign:
        """Read what ``to_text`` wrote."""
        return cls(**json.loads(text))


def waits_for_others(frames: Mapping[int, FrameType]) -> bool:
    """Whether a process is in a collective.

    Args:
        frames: of its threads (``sys._current_frames``).  Those that were started by Python, as
            are a watchdog's, do not count; torch's, in which a GPU's gradients are found, do.
    """
    ours = {each.ident for each in threading.enumerate()} - {threading.main_thread().ident}
    return any(
        str(frame.f_globals.get("__name__", "")).startswith(COLLECTIVES)
        for thread, own in frames.items()
        if thread not in ours
        for frame in _outwards(own)
    )


def place_of(frames: Mapping[int, FrameType]) -> str:
    """Return where the main thread is, as ``folder/file.py:line in function``."""
    frame = frames.get(threading.main_thread().ident or 0)
    if frame is None:
        return "its end"
    name = "/".join(PurePath(frame.f_code.co_filename).parts[-2:])
    return f"{name}:{frame.f_lineno} in {frame.f_code.co_name}"


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame and those that called it."""
    while frame is not None:
        yield frame
        frame = frame.f_back
