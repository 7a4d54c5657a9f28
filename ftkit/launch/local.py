"""Starts the ranks of one machine, and ends when they have ended, none left behind.

The parent runs nothing itself: it starts the very command that it was given once for each rank,
with variables that say which rank that is, hands signals on, and, as soon as one rank has failed,
gives the others a few seconds and then kills them.  What it says and returns in the end is worked
out in ``reports``.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from types import FrameType

from ftkit.core.errors import RUN_FAILED
from ftkit.launch.devices import cores
from ftkit.launch.reports import FOLDER, OVER, ending, reports_in

GRACE = 5.0
"""Seconds that the other ranks have once one has failed."""
LOOK = 0.05
"""Seconds between looks at the ranks."""
PARENT = "FTKIT_PARENT"
"""Variable of the environment: the process that started a rank, and with which it ends."""
APART = 1.0
"""Seconds between two Ctrl-C of a person; what comes sooner is one signal that came twice."""
PATIENCE = 2
"""How often Ctrl-C is handed on; a person who presses it once more wants an end at once."""
HANDED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


@dataclass(frozen=True)
class Node:
    """This machine's part of a run."""

    ranks: int
    """How many are started here."""
    first: int = 0
    """The number of the first of them."""
    size: int = 0
    """Of how many, on all machines; 0 = there are no others."""
    master: tuple[str, int] = ("127.0.0.1", 0)
    """Where rank 0 listens; port 0 = any that is free."""


@dataclass
class Ranks:
    """The ranks of this machine while they run."""

    node: Node
    command: Sequence[str]
    """Of a rank: program and arguments."""
    controlled: bool = False
    """Whether standard input brings the numbers of signals, and its end that of the run."""
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    killed: set[int] = field(default_factory=set)
    """Those that this launcher has killed."""
    pressed: list[float] = field(default_factory=list)
    """When Ctrl-C was pressed (``time.monotonic``)."""

    def run(self) -> int:
        """Start them, wait for them, and return the exit status of all.

        It is 0 if that of each is; 128 + the number of a signal by which they were asked to stop;
        else that of the first that failed, 1 for one that was killed.
        """
        folder = Path(tempfile.mkdtemp(prefix="ftkit-ranks-"))
        before = {each: signal.signal(each, self._hand_on) for each in _heeded()}
        try:
            self._start(folder)
            if self.controlled:
                Thread(target=self._listen, daemon=True).start()
            status = self._wait(folder)
        finally:
            self._kill()
            for each, handler in before.items():
                signal.signal(each, handler)
            shutil.rmtree(folder, ignore_errors=True)
        return status

    def environment(self, local: int, folder: Path) -> dict[str, str]:
        """Return the variables of a rank, counted from 0 on this machine."""
        node = self.node
        threads = str(max(1, cores() // node.ranks))
        own = {
            "RANK": str(node.first + local),
            "LOCAL_RANK": str(local),
            "WORLD_SIZE": str(node.size or node.ranks),
            "LOCAL_WORLD_SIZE": str(node.ranks),
            "MASTER_ADDR": node.master[0],
            "MASTER_PORT": str(node.master[1]),
            FOLDER: str(folder),
            PARENT: str(os.getpid()),
        }
        return {"OMP_NUM_THREADS": threads, **os.environ, **own}

    def _start(self, folder: Path) -> None:
        """Start all of them; a signal that comes meanwhile is handed on to each.

        A rank begins with these signals blocked, and lets them through when it knows what to do
        (``rank.begin``): none ends it with a traceback.
        """
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDED_ON)
        try:
            for local in range(self.node.ranks):
                self.running[self.node.first + local] = subprocess.Popen(
                    list(self.command),
                    env=self.environment(local, folder),
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,  # a terminal's Ctrl-C comes to the parent alone
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _wait(self, folder: Path) -> int:
        ended: dict[int, int] = {}
        failed_at: float | None = None
        while len(ended) < len(self.running):
            for rank, process in self.running.items():
                if rank not in ended and (status := process.poll()) is not None:
                    ended[rank] = status
                    if status and failed_at is None:
                        failed_at = time.monotonic()
                        with suppress(OSError):  # a full disk: they find out by themselves
                            (folder / OVER).write_text(f"rank {rank} on {socket.gethostname()}")
            if failed_at is not None and time.monotonic() - failed_at > GRACE:
                self._kill()
                late = [rank for rank in self.running if rank not in ended]
                ended |= {rank: self.running[rank].returncode for rank in late}
            time.sleep(LOOK)
        found = reports_in(folder)
        status, lines = ending(ended, found, self.killed)
        if not (self._told_elsewhere and found and found[0].shared and status != RUN_FAILED):
            sys.stderr.write("".join(f"{line}\n" for line in lines))
        sys.stderr.flush()
        return status

    @property
    def _told_elsewhere(self) -> bool:
        """Whether what all ranks say alike is said by another machine, in the same place."""
        return self.controlled and self.node.first > 0

    def _hand_on(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (the form)
        """Send a signal to every rank.  No waiting here: it may have interrupted just that."""
        if number == signal.SIGINT and not self._hurried():
            number = signal.SIGKILL
        for rank, process in self.running.items():
            if process.poll() is None:
                process.send_signal(number)
                if number == signal.SIGKILL:
                    self.killed.add(rank)

    def _hurried(self) -> bool:
        """Note a Ctrl-C; say whether it is to be handed on."""
        now = time.monotonic()
        if not self.pressed or now - self.pressed[-1] > APART:
            self.pressed.append(now)
        return len(self.pressed) <= PATIENCE

    def _listen(self) -> None:
        """Hand on what whoever started this launcher says; kill where nobody is there any more."""
        left = b""
        with suppress(OSError):
            while part := os.read(0, 1024):  # sys.stdin would be locked when this process ends
                *lines, left = (left + part).split(b"\n")
                for line in lines:
                    if line.strip().isdigit():
                        self._hand_on(int(line), None)
        self._hand_on(signal.SIGKILL, None)

    def _kill(self) -> None:
        self._hand_on(signal.SIGKILL, None)
        for process in self.running.values():
            process.wait()


def _heeded() -> list[signal.Signals]:
    """Return the signals that are handed on; nohup's wish, that SIGHUP be ignored, holds."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [each for each in HANDED_ON if not (ignored and each == signal.SIGHUP)]


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def is_free(address: str, port: int) -> bool:
    """Whether a port of an address of this machine can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
