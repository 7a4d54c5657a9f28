"""SIGTERM, SIGINT, SIGUSR1, SIGHUP: a run that is asked to stop writes a checkpoint first."""

from __future__ import annotations

import signal
import time
from types import FrameType, TracebackType

CAUGHT = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
APART = 1.0
"""Seconds between two Ctrl-C of a person; what comes sooner is one that came by two ways."""


class Interrupt:
    """Remembers the first signal, which the loop looks at between steps.

    Before that begins, a signal ends the process at once, as it does any: there is nothing to save.
    A second Ctrl-C stops at once.  Other signals may come again and again: Slurm sends each to
    every process, of which some hand it on, and SIGTERM after SIGUSR1.
    """

    def __init__(self) -> None:
        """Catch nothing yet: ``with Interrupt() as interrupt``."""
        self.signal: signal.Signals | None = None
        self._pressed: float | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interrupt:
        """Take over the handlers."""
        for caught in CAUGHT:
            if caught == signal.SIGHUP and signal.getsignal(caught) is signal.SIG_IGN:
                continue  # by nohup
            self._before[caught] = signal.signal(caught, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the handlers back."""
        for caught, before in self._before.items():
            signal.signal(caught, before)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (the handler's form)
        self.signal = self.signal or signal.Signals(number)
        if number != signal.SIGINT:
            return
        if self._pressed is None:
            self._pressed = time.monotonic()
        elif time.monotonic() - self._pressed > APART:
            raise KeyboardInterrupt

    @property
    def status(self) -> int:
        """The exit status that a shell gives to the signal: 143 for SIGTERM, 138 for SIGUSR1."""
        return 128 + int(self.signal or 0)
