"""Processes that judge answers, each with a deadline and a memory limit."""

from __future__ import annotations

import os
import selectors
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence

from ftkit.core.phase import beat
from ftkit.verifiers.base import Item, Status, Verdict
from ftkit.verifiers.process import BrokenProcessError, Process, Setup

MOST = 4
"""Processes where nothing is said."""

TRIES = 2
"""How often an answer is judged whose judgement is an error, where nothing is said."""

STARTS = 3
"""Failed starts in a row after which no further one is tried."""


class Pool:
    """Judges answers in processes; one that hangs is killed, one that ended is replaced.

    One answer at a time goes to a process, and the deadline is kept here, so that nothing that runs
    there can evade it.  Processes are started when there is work for them.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        workers: int | None = None,
        late: Status = "timeout",
        tries: int = TRIES,
    ) -> None:
        """Take what its processes are.

        Args:
            setup: of each of them.
            workers: how many at most; None = one for each CPU, at most 4.
            late: the status of what is not judged in time: ``timeout`` has reward 0, ``error``
                none.
            tries: how often an answer is judged whose judgement is an error.
        """
        self.setup = setup
        self.workers = workers or min(MOST, len(os.sched_getaffinity(0)))
        self.late = late
        self.tries = tries
        self.processes: list[Process] = []
        self.faults: list[str] = []
        self._lock = threading.Lock()
        self._end = weakref.finalize(self, _kill, self.processes)

    def check(self) -> str | None:
        """Start the first process; say what keeps it from its work, if anything does."""
        with self._lock:
            self.faults.clear()
            while not self.faults and not any(process.ready for process in self.processes):
                self.grow(1)
                for process in self.arrived():
                    self.receive(process)
                for process in self.overdue():
                    self.remove(process)
            return self.faults[0] if self.faults else None

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """Return a verdict on each answer, in the same order."""
        with self._lock:
            try:
                return _Round(self, items).run()
            except BaseException:  # an interrupt: what is under way belongs to no round
                _kill(self.processes)
                raise

    def close(self) -> None:
        """Kill all processes; a later ``judge`` starts new ones."""
        with self._lock:
            _kill(self.processes)

    def grow(self, wanted: int) -> None:
        """Start processes until there are so many as are wanted, or may be."""
        while len(self.processes) < min(wanted, self.workers):
            self.processes.append(Process(self.setup))

    def arrived(self) -> list[Process]:
        """Wait for the next message or deadline; return the processes that say something."""
        busy = [one for one in self.processes if not one.ready or one.item is not None]
        with selectors.DefaultSelector() as selector:
            for process in busy:
                selector.register(process.socket, selectors.EVENT_READ, process)
            left = min((one.deadline for one in busy), default=0.0) - time.monotonic()
            return [key.data for key, _ in selector.select(max(left, 0.0))]

    def overdue(self) -> list[Process]:
        """Return the processes that should have answered by now."""
        now = time.monotonic()
        busy = (one for one in self.processes if not one.ready or one.item is not None)
        return [one for one in busy if one.deadline <= now]

    def receive(self, process: Process) -> Verdict | None:
        """Return a process's verdict, if one has arrived; one that ended is removed: an error."""
        started = process.ready
        try:
            verdict = process.receive()
        except BrokenProcessError as error:
            self.remove(process, str(error))
            return Verdict("error", None, str(error)) if started else None
        if process.ready:
            self.faults.clear()
        return verdict

    def remove(self, process: Process, reason: str | None = None) -> None:
        """Kill a process; one that never was ready counts as a failed start."""
        process.kill()
        if process in self.processes:
            self.processes.remove(process)
        if not process.ready:
            late = f"it was not ready after {self.setup.start_timeout:g} s"
            self.faults.append(late if reason is None else reason)


class _Round:
    """The answers of one call, as they go through the pool."""

    def __init__(self, pool: Pool, items: Sequence[Item]) -> None:
        self.pool = pool
        self.items = items
        self.todo = deque(range(len(items)))
        self.tries = [0] * len(items)
        self.verdicts: dict[int, Verdict] = {}

    def run(self) -> list[Verdict]:
        pool = self.pool
        pool.faults.clear()
        while len(self.verdicts) < len(self.items):
            self._hand_out()
            if len(pool.faults) >= STARTS:
                self._give_up()
                break
            for process in pool.arrived():
                place = process.item
                verdict = pool.receive(process)
                if verdict is not None and place is not None:
                    process.item = None
                    self._note(place, verdict)
                if process.spent:
                    pool.remove(process)
            for process in pool.overdue():
                beat()
                if process.item is not None:
                    self.verdicts[process.item] = self._late()
                pool.remove(process)
        return [self.verdicts[place] for place in range(len(self.items))]

    def _hand_out(self) -> None:
        busy = sum(process.item is not None for process in self.pool.processes)
        self.pool.grow(len(self.todo) + busy)
        for process in list(self.pool.processes):
            if not process.ready or process.item is not None or not self.todo:
                continue
            place = self.todo.popleft()
            try:
                process.judge(place, self.items[place])
            except BrokenProcessError:  # it ended while idle: no fault of this answer
                self.todo.appendleft(place)
                self.pool.remove(process)

    def _note(self, place: int, verdict: Verdict) -> None:
        beat()
        self.tries[place] += 1
        if verdict.status == "error" and self.tries[place] < self.pool.tries:
            self.todo.append(place)
        else:
            self.verdicts[place] = verdict

    def _late(self) -> Verdict:
        seconds = self.pool.setup.timeout
        reason = f"judging took more than {seconds:g} s"
        if self.pool.late == "error":
            return Verdict("error", None, reason, seconds=seconds)
        return Verdict(self.pool.late, 0.0, reason, seconds=seconds)

    def _give_up(self) -> None:
        reason = f"the verifier's process does not start: {self.pool.faults[-1]}"
        for place in range(len(self.items)):
            self.verdicts.setdefault(place, Verdict("error", None, reason))
        for process in list(self.pool.processes):
            if process.item is not None:
                self.pool.remove(process)


def _kill(processes: list[Process]) -> None:
    while processes:
        processes.pop().kill()
