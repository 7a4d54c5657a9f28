"""Starts a run on several machines: on each the same command, by ssh or here.

What runs on a machine is a launcher of its ranks (``local``).  It is told who it is by variables
(``where``), and the rest by its standard input (``told``).
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType

from ftkit.core.errors import RUN_FAILED, USER_ERROR
from ftkit.launch.hosts import Host
from ftkit.launch.local import GRACE, HANDED_ON, LOOK
from ftkit.launch.machine import UNREACHABLE, is_here, shell, shell_text
from ftkit.launch.told import CONTROL, for_python, line_of
from ftkit.launch.where import MASTER, NODE, NODES

SPARE = 2 * GRACE
"""Seconds that machines have once one has failed: each gives its own ranks ``GRACE``."""
PATIENCE = 2
"""How often Ctrl-C is handed on; whoever presses it once more wants an end at once."""


@dataclass
class Nodes:
    """The machines of a run while it runs."""

    hosts: Sequence[Host]
    port: int
    command: Sequence[str]
    """Program and arguments, the same on each."""
    names: Sequence[str] = ()
    """Variables that each machine is given beside the usual ones."""
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    """The signals that came, by their numbers."""

    def lines(self) -> list[str]:
        """Return what is run, a line for each machine."""
        return [
            f"{host.name}: {shlex.join([*shell(host), self._there(number)])}"
            for number, host in enumerate(self.hosts)
        ]

    def run(self) -> int:
        """Start them, wait for them, and return the exit status.

        It is 0 if that of each is; 2 if that of one is; else that of the first that failed, 1 for
        one that was lost or killed.
        """
        before = {each: signal.signal(each, self._hand_on) for each in HANDED_ON}
        try:
            for number, host in enumerate(self.hosts):
                self.running[number] = subprocess.Popen(
                    [*shell(host), self._there(number)],
                    stdin=subprocess.PIPE,
                    start_new_session=True,  # a terminal's Ctrl-C comes to this process alone
                )
                self._tell(number, line_of(self.names))
                for signalled in list(self.asked):  # before it was there
                    self._tell(number, b"%d\n" % signalled)
            return self._wait()
        finally:
            self._end()
            for each, handler in before.items():
                signal.signal(each, handler)

    def _there(self, number: int) -> str:
        """Return what a shell on a machine is told to do."""
        master = self.hosts[0].address
        own = {
            NODE: str(number),
            NODES: str(len(self.hosts)),
            MASTER: f"{f'[{master}]' if ':' in master else master}:{self.port}",
            CONTROL: "1",
        }
        return shell_text(self.command, {**for_python(), **own})

    def _wait(self) -> int:
        ended: dict[int, int] = {}
        failed_at: float | None = None
        while len(ended) < len(self.running) and not self._hurried():
            for number, process in self.running.items():
                if number not in ended and (status := process.poll()) is not None:
                    ended[number] = status
                    if status and failed_at is None:
                        failed_at = time.monotonic()
            if failed_at is not None and time.monotonic() - failed_at > SPARE:
                break
            time.sleep(LOOK)
        failed = {number: status for number, status in ended.items() if status}
        self._say(failed, set(self.running) - set(ended))
        if not failed:
            return 128 + signal.SIGINT if self._hurried() else 0
        first = next(iter(failed.values()))
        if USER_ERROR in failed.values():
            return USER_ERROR
        return first if 0 < first < UNREACHABLE else RUN_FAILED

    def _say(self, failed: dict[int, int], left: set[int]) -> None:
        """Say of machines that were lost what they could not say themselves."""
        for number, status in failed.items():
            name = self.hosts[number].name
            if status < 0:
                told = f"ftkit was killed by {signal.Signals(-status).name}"
            elif status == UNREACHABLE and not is_here(self.hosts[number]):
                told = "the connection was lost, or ftkit was killed there"
            elif status == 128 + signal.SIGKILL:
                told = "ftkit was killed there by SIGKILL"
            else:
                continue
            sys.stderr.write(f"{name}: {told}\n")
        if left:
            names = ", ".join(self.hosts[number].name for number in sorted(left))
            sys.stderr.write(f"{names}: ended, since the run was over\n")
        sys.stderr.flush()

    def _hand_on(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (the form)
        self.asked.append(number)
        for node in list(self.running):
            self._tell(node, b"%d\n" % number)

    def _hurried(self) -> bool:
        return self.asked.count(signal.SIGINT) > PATIENCE

    def _tell(self, number: int, line: bytes) -> None:
        """Write a line to a machine's launcher; it may be gone."""
        stdin = self.running[number].stdin
        assert stdin is not None
        try:
            os.write(stdin.fileno(), line)
        except (OSError, ValueError):  # it has just ended, or has been ended
            return

    def _end(self) -> None:
        """Close what tells them of us, upon which they end their ranks; then wait."""
        for process in self.running.values():
            if process.stdin is not None:
                process.stdin.close()
        deadline = time.monotonic() + GRACE
        for process in self.running.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
