"""Starts the ranks of one machine, and ends when they have ended, none left behind.

The parent runs nothing itself: it starts the very command that it was given once for each rank,
with variables that say which rank that is, hands signals on, and, as soon as one rank has failed,
gives the others a few seconds and then kills them.
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from types import FrameType

from ftkit.launch.devices import cores
from ftkit.launch.reports import FOLDER, OVER, reports_in

GRACE = 5.0
"""Seconds that the other ranks have once one has failed."""
LOOK = 0.05
"""Seconds between looks at the ranks."""
PARENT = "FTKIT_PARENT"
"""Variable of the environment: the process that started a rank, and with which it ends."""
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
    signalled: int = 0
    """How many signals there were."""

    def run(self) -> int:
        """Start them, wait for them, and return the exit status of all.

        It is 0 if that of each is; else that of the first that failed, 1 for one that was killed.
        """
        folder = Path(tempfile.mkdtemp(prefix="ftkit-ranks-"))
        before = {each: signal.signal(each, self._hand_on) for each in HANDED_ON}
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
        for local in range(self.node.ranks):
            self.running[self.node.first + local] = subprocess.Popen(
                list(self.command),
                env=self.environment(local, folder),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a terminal's Ctrl-C comes to the parent alone
            )

    def _wait(self, folder: Path) -> int:
        ended: dict[int, int] = {}
        failed_at: float | None = None
        while len(ended) < len(self.running):
            for rank, process in self.running.items():
                if rank not in ended and (status := process.poll()) is not None:
                    ended[rank] = status
                    if status and failed_at is None:
                        failed_at = time.monotonic()
                        (folder / OVER).write_text(f"rank {rank} on {socket.gethostname()}")
            if failed_at is not None and time.monotonic() - failed_at > GRACE:
                killed = set(self.running) - set(ended)
                self._kill()
                ended |= dict.fromkeys(killed, -signal.SIGKILL)
                return self._told(ended, folder, killed)
            time.sleep(LOOK)
        return self._told(ended, folder, set())

    def _told(self, ended: Mapping[int, int], folder: Path, killed: set[int]) -> int:
        """Say why ranks failed, what caused it first; return the exit status."""
        failed = {rank: status for rank, status in ended.items() if status}
        if not failed:
            return 0
        alike = set(failed.values())
        if len(alike) == 1 and len(failed) == len(ended) and (one := alike.pop()) > 2:  # noqa: PLR2004
            return one  # all were asked to stop, and did
        found = reports_in(folder)
        gone = {
            rank: status for rank, status in failed.items() if status < 0 and rank not in killed
        }
        for rank, status in gone.items():
            _say(f"rank {rank} was killed by {signal.Signals(-status).name}{_guess(-status)}")
        own = [each for each in found if not each.secondary]
        if own:
            where = "" if own[0].shared else f"rank {own[0].rank} on {own[0].host} failed first:\n"
            _say(where + "\n".join(own[0].lines))
            others = [str(each.rank) for each in own[1:] if not each.shared]
            if others:
                _say(f"then also ranks {', '.join(others)}")
        elif not gone and found:
            _say(f"rank {found[0].rank} on {found[0].host}:\n" + "\n".join(found[0].lines))
        if killed:
            _say(f"ranks {', '.join(map(str, sorted(killed)))} were ended")
        return own[0].status if own and not gone else 1

    def _hand_on(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (the form)
        self.signalled += 1
        if self.signalled > 2:  # noqa: PLR2004 (a person who asks a third time means it)
            self._kill()
            return
        for process in self.running.values():
            if process.poll() is None:
                process.send_signal(number)

    def _listen(self) -> None:
        """Hand on what whoever started this launcher says; kill where nobody is there any more."""
        for line in sys.stdin:
            if line.strip().isdecimal():
                self._hand_on(int(line), None)
        for process in self.running.values():
            process.kill()

    def _kill(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.kill()
        for process in self.running.values():
            process.wait()


def _guess(number: int) -> str:
    return ": perhaps for want of memory (see dmesg)" if number == signal.SIGKILL else ""


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


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
