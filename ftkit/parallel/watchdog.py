"""Finds a rank that hangs, and says which, in what phase and since when.

Each rank tells the others, by the store that they share, what it is doing and how often it has got
on.  Where nothing gets on anywhere for too long, the ranks that do not wait for others are the
ones that hang; every rank says so and ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Any

from ftkit.core import phase
from ftkit.launch.reports import FOLDER, OVER, report

FAILED = "failed"
"""The key under which the store says that a rank is lost."""


@dataclass(frozen=True, slots=True)
class Sign:
    """What a rank said of itself."""

    rank: int
    host: str
    phase: str
    step: int
    beats: int
    """How often it has got on."""

    def __str__(self) -> str:
        """In words.

        >>> str(Sign(1, "node7", "learning", 3, 10))
        'rank 1 on node7, in step 3: learning'
        """
        return f"rank {self.rank} on {self.host}, in step {self.step}: {self.phase}"


class Watchdog:
    """A thread that looks every now and then, while the ranks work."""

    def __init__(self, store: Any, rank: int, size: int, timeout: float) -> None:
        """Take the store, and how many seconds without progress are too many."""
        self._store, self._rank, self._size = store, rank, size
        self._timeout = timeout
        self._every = min(1.0, timeout / 5)
        self._over = Event()
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watchdog:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop looking; tell the others where this rank has failed."""
        self._over.set()
        self._thread.join()
        if error is not None and not getattr(error, "shared", False):
            self._tell_failed(f"rank {self._rank} on {socket.gethostname()}")

    def _watch(self) -> None:
        told: Sign | None = None
        seen: dict[int, tuple[Sign, float]] = {}
        while not self._over.wait(self._every):
            mine = phase.now
            sign = Sign(self._rank, socket.gethostname(), mine.name, mine.step, mine.beats)
            try:
                if sign != told:
                    self._store.set(f"sign/{self._rank}", json.dumps(_row(sign)))
                    told = sign
                lost = self._lost()
                self._read(seen)
            except Exception:  # the rank that keeps the store is gone
                lost = "the rank that all others meet at (0)"
            if lost is not None:
                self._end(f"{lost} is gone", [])
            quiet = time.monotonic() - max((at for _, at in seen.values()), default=mine.since)
            if quiet > self._timeout and time.monotonic() - mine.since > self._timeout:
                self._end(
                    f"nothing has got on for {quiet:.0f} s (parallel.timeout)", [*seen.values()]
                )

    def _read(self, seen: dict[int, tuple[Sign, float]]) -> None:
        """Note what each rank says of itself, and when it last got on."""
        keys = [f"sign/{rank}" for rank in range(self._size)]
        there = [key for key in keys if self._store.check([key])]
        for text in self._store.multi_get(there) if there else ():
            sign = Sign(**json.loads(text))
            if sign.rank not in seen or seen[sign.rank][0] != sign:
                seen[sign.rank] = sign, time.monotonic()

    def _lost(self) -> str | None:
        """Return which rank is known to be lost, if any is."""
        folder = os.environ.get(FOLDER)
        if folder is not None and (over := Path(folder) / OVER).is_file():
            self._tell_failed(over.read_text())
            return over.read_text()
        if self._store.check([FAILED]):
            lost: str = self._store.get(FAILED).decode()
            return lost
        return None

    def _tell_failed(self, which: str) -> None:
        try:
            self._store.set(FAILED, which)
        except Exception:  # nobody is there to be told
            return

    def _end(self, why: str, signs: list[tuple[Sign, float]]) -> None:
        """Say what is known, and end this process: its main thread cannot be woken."""
        lines = [why]
        busy = [sign for sign, _ in signs if sign.phase != phase.WAITING]
        if busy:
            lines += [f"{sign} (hangs)" for sign in busy]
            lines += [str(sign) for sign, _ in signs if sign not in busy]
        elif signs:
            lines.append("every rank waits for the others: they have lost each other")
            lines += [str(sign) for sign, _ in signs]
        told = report(self._rank, 1, [f"the run failed: {lines[0]}", *lines[1:]], shared=True)
        if not signs:  # the rank that failed has more to say
            self._over.wait(SPARE)
        elif not told.write():
            sys.stderr.write("\n".join(told.lines) + "\n")
        if not self._over.is_set():
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)


SPARE = 3.0
"""Seconds that the main thread has to find out by itself that another rank is gone."""


def _row(sign: Sign) -> dict[str, Any]:
    return {name: getattr(sign, name) for name in Sign.__slots__}
