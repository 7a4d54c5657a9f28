"""Finds a rank that hangs, and says which, in what phase and since when.

Each rank tells the others, by the store that they share, what it is doing and how often it has got
on.  Where nothing gets on anywhere for too long, a rank that no longer says anything is the one
that hangs; else those that do not wait for others.  Every rank finds that and ends.
"""

from __future__ import annotations

import os
import resource
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
from ftkit.parallel.sign import Sign, place_of, waits_for_others

FAILED = "failed"
"""The key under which the store says that a rank is lost, and which."""
AGENT = "TORCHELASTIC_USE_AGENT_STORE"
"""Variable of the environment: ``True`` where torchrun keeps the store."""
LOOK = 1.0
"""Seconds between looks at what is known, at most."""
SPEAK = 5.0
"""Seconds between two signs of a rank, at most."""
SPARE = 3.0
"""Seconds that the main thread has to find out by itself that another rank is gone."""


@dataclass
class Seen:
    """What is known of a rank, and when that was news, by the clock of the one that looks."""

    sign: Sign
    progress: float
    """When it last got on."""
    life: float
    """When it last said anything."""


class Watchdog:
    """Two threads beside the ranks' work: one speaks with the others, and one looks.

    The one that speaks may be held up for ever by a store whose keeper was stopped; the one that
    looks asks nobody.
    """

    def __init__(self, store: Any, rank: int, size: int, timeout: float) -> None:
        """Take the store, and how many seconds without progress are too many."""
        self._store, self._last_word = store.clone(), store.clone()
        self._rank, self._size, self._timeout = rank, size, timeout
        self._host = socket.gethostname()
        self._look = min(LOOK, timeout / 5)
        self._over = Event()
        self._signs: dict[int, Sign] = {}
        self._seen: dict[int, Seen] = {}
        self._lost: str | None = None
        self._clock = 0.0
        """Seconds that this process was awake: a run that is suspended as a whole does not hang."""
        self._threads = [Thread(target=each, daemon=True) for each in (self._speak, self._watch)]

    def __enter__(self) -> Watchdog:
        """Begin to look."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop looking; tell the others where this rank has failed."""
        self._over.set()
        self._threads[1].join()
        self._threads[0].join(SPARE)
        if error is not None and not getattr(error, "shared", False):
            self._tell_failed(f"rank {self._rank} on {self._host}")

    # the thread that speaks

    def _speak(self) -> None:
        said, there = 0, set[str]()
        every = min(SPEAK, self._timeout / 5)
        wanted = {f"sign/{rank}" for rank in range(self._size)}
        try:
            while True:
                said += 1
                self._store.set(f"sign/{self._rank}", self._own(said).to_text())
                there |= {key for key in wanted - there if self._store.check([key])}
                for text in self._store.multi_get(sorted(there)):
                    sign = Sign.of(text)
                    self._signs[sign.rank] = sign
                if self._store.check([FAILED]):
                    self._lost = self._store.get(FAILED).decode()
                    return
                if self._over.wait(every):
                    return
        except Exception:  # the rank that keeps the store is gone
            self._lost = "rank 0, at which all others meet, is gone"

    def _own(self, said: int) -> Sign:
        """Return what this rank has to say."""
        frames = sys._current_frames()
        now, used = phase.now, resource.getrusage(resource.RUSAGE_SELF)
        return Sign(
            rank=self._rank,
            host=self._host,
            phase=now.name,
            step=now.step,
            waits=now.name == phase.WAITING or waits_for_others(frames),
            place=place_of(frames),
            # a model that comes from a slow disk takes long and gets on
            progress=now.beats + used.ru_inblock + used.ru_oublock,
            said=said,
        )

    # the thread that looks

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._over.wait(self._look):
            now = time.monotonic()
            self._clock += min(now - before, 2 * self._look)
            before = now
            self._note()
            if (lost := self._lost or self._lost_here()) is not None:
                self._over.wait(SPARE)  # the rank that failed has more to say
                self._end([lost], follows=True)
            quiet = self._clock - max((s.progress for s in self._seen.values()), default=0.0)
            if quiet > self._timeout:
                self._hung(quiet)

    def _note(self) -> None:
        """Note which signs are news.

        What this rank does itself, it need not be told; that the store has told it shows that the
        store answers.
        """
        signs = dict(self._signs)
        own = self._own(signs[self._rank].said if self._rank in signs else 0)
        for rank, sign in {**signs, self._rank: own}.items():
            seen = self._seen.get(rank)
            if seen is None:
                self._seen[rank] = Seen(sign, self._clock, self._clock)
                continue
            if sign.progress != seen.sign.progress:
                seen.progress = self._clock
            if sign.said != seen.sign.said:
                seen.life = self._clock
            seen.sign = sign

    def _lost_here(self) -> str | None:
        """Return what this machine's launcher says of a rank that has failed."""
        folder = os.environ.get(FOLDER)
        if folder is None or not (over := Path(folder) / OVER).is_file():
            return None
        lost = f"{over.read_text()} is gone"
        self._tell_failed(lost)
        return lost

    def _hung(self, quiet: float) -> None:
        """Say who hangs, and end."""
        silent = {r for r, s in self._seen.items() if self._clock - s.life > self._timeout / 2}
        lines, others = list[str](), list[str]()
        if self._rank in silent:  # it is the store that does not answer
            silent = {0}
            if os.environ.get(AGENT) == "True":
                silent, lines = set(), ["the launcher at which all ranks meet says nothing"]
        for rank in range(self._size):
            seen = self._seen.get(rank)
            if seen is None:
                lines.append(f"rank {rank} has not come")
            elif rank in silent:
                lines.append(f"{seen.sign}, when last heard (hangs: it is stopped, or cut off)")
            elif not silent and not lines and not seen.sign.waits:
                lines.append(f"{seen.sign}, at {seen.sign.place} (hangs)")
            else:
                others.append(str(seen.sign))
        lines = lines or ["every rank waits for the others: they have lost each other"]
        first = f"nothing has got on for {quiet:.0f} s (parallel.timeout)"
        self._tell_failed(f"{first}: {'; '.join(lines)}")
        leads = self._rank == min(set(range(self._size)) - silent - {*self._missing()})
        self._end([first, *lines, *others], aloud=leads)

    def _missing(self) -> list[int]:
        return [rank for rank in range(self._size) if rank not in self._seen]

    def _tell_failed(self, what: str) -> None:
        try:
            self._last_word.set(FAILED, what)
        except Exception:  # nobody is there to be told
            return

    def _end(self, lines: list[str], *, follows: bool = False, aloud: bool = False) -> None:
        """Say what is known, and end this process: its main thread cannot be woken.

        Args:
            lines: to be said.
            follows: whether another rank has failed before.
            aloud: whether this is the rank that says it where there is no launcher of ours.
        """
        if self._over.is_set():  # the main thread has found out
            return
        text = [f"the run failed: {lines[0]}", *lines[1:]]
        told = report(self._rank, 1, text, shared=True, follows=follows)
        if not told.write():
            if aloud:
                sys.stderr.write("\n".join(told.lines) + "\n")
                sys.stderr.flush()
            elif not follows:
                time.sleep(LOOK)  # torchrun ends all ranks with the first
        os._exit(1)
