"""Processes of a verifier while the run is asked to stop, and when it is killed.

Slurm sends its signals to every process of a job.  The run ends its processes itself, after the
step at hand; until then they work on.  Where it can end nothing any more, they end by themselves.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ftkit.launch.parent import signal_at_its_end

TO_THE_RUN = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
"""Signals that ask the run to stop."""
ORPHANED = signal.SIGIO
"""What a process is sent when the one is killed that it works for."""


@contextmanager
def shielded() -> Iterator[None]:
    """In it, what is started does not get the run's signals, until it says that it will."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TO_THE_RUN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve_the_parent_alone() -> None:
    """Heed no signal to the run, and kill this process's group when the parent has ended."""
    parent = os.getppid()

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (the handler's form)
        if os.getppid() != parent and os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)

    signal.signal(ORPHANED, end)
    signal_at_its_end(ORPHANED)
    for each in TO_THE_RUN:  # not ignored: what this process starts would ignore them, too
        signal.signal(each, _nothing)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TO_THE_RUN)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Go on."""
