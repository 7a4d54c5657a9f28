"""A process that shall not outlive the one that started it."""

from __future__ import annotations

import ctypes
import signal

PR_SET_PDEATHSIG = 1
"""Linux's number of the wish for a signal when the parent ends."""


def signal_at_its_end(number: signal.Signals) -> None:
    """Have this process sent a signal when its parent ends, or the parent's thread it is of."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
