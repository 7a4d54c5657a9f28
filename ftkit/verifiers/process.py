"""One process of a verifier, as seen from the training process."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ftkit.verifiers.base import STATUSES, Item, Verdict
from ftkit.verifiers.shield import shielded

LARGEST = 1_000_000
"""Bytes of one message."""

SENDING = 5.0
"""Seconds that an idle process may take to read a request."""

FORGED = "it wrote to the socket of the verdicts"

ENDING = 0.5
"""Seconds that a process may take to end that has closed its socket."""

START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from ftkit.verifiers.worker import main; main(int(sys.argv[1]))"
)


class BrokenProcessError(Exception):
    """The process ended, or says what no verifier says: why."""


@dataclass(frozen=True)
class Setup:
    """What a process is to be."""

    name: str
    """The verifier's."""
    values: Mapping[str, Any]
    """What it is made with."""
    timeout: float
    """Seconds for one answer."""
    memory_mb: int
    start_timeout: float = 60.0
    """Seconds to be ready in."""


class Process:
    """A new interpreter with a verifier in it, in a session of its own.

    Its temporary files lie in a folder that is removed with it.

    Attributes:
        ready: whether it has said that it can judge.
        spent: whether it asks to be replaced.
        item: the place of what it judges among all; None = it is idle.
        deadline: when it must have answered (``time.monotonic``).
    """

    def __init__(self, setup: Setup) -> None:
        """Start it; ``receive`` tells when it is ready."""
        self.setup = setup
        self.scratch = tempfile.mkdtemp(prefix="ftkit-verify-")
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(SENDING)
        self._rest = b""
        self._number = ""
        self.ready = False
        self.spent = False
        self.item: int | None = None
        self.since = time.monotonic()
        self.deadline = self.since + setup.start_timeout
        path = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109
        environment = {"OMP_NUM_THREADS": "1", **os.environ, "TMPDIR": self.scratch}
        with theirs, shielded():
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, str(theirs.fileno()), json.dumps(path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=environment,
            )
        first = {key: getattr(setup, key) for key in ("name", "timeout", "memory_mb")}
        with contextlib.suppress(OSError):  # should it have ended, receive says so
            self._send({**first, "values": dict(setup.values)})

    def judge(self, place: int, item: Item) -> None:
        """Have an answer judged.

        Raises:
            BrokenProcessError: if the process has ended.
        """
        self._number, self.item = secrets.token_hex(8), place
        self.since = time.monotonic()
        self.deadline = self.since + self.setup.timeout
        told = {"prompt": item.prompt, "answer": item.answer, "truth": item.truth}
        try:
            self._send({"number": self._number, "item": told})
        except OSError:
            raise BrokenProcessError(self.end()) from None

    def receive(self) -> Verdict | None:
        """Return the verdict that has arrived, or nothing (``ready`` may have changed).

        Raises:
            BrokenProcessError: if the process has ended, cannot begin, or says what it may not.
        """
        try:
            data = self.socket.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            raise BrokenProcessError(self.end())
        line, ended, rest = (self._rest + data).partition(b"\n")
        if rest or len(line) > LARGEST:
            raise BrokenProcessError(FORGED)
        self._rest = b"" if ended else line
        return self._understand(line) if ended else None

    def _understand(self, line: bytes) -> Verdict | None:
        try:
            message = json.loads(line)
            if not self.ready:
                if "fault" in message:
                    raise BrokenProcessError(str(message["fault"]))
                self.ready = bool(message["ready"])
                return None
            if message["number"] != self._number or self.item is None:
                raise BrokenProcessError(FORGED)
            status, reward, detail = message["status"], message["reward"], message["detail"]
            self.spent = message["last"] is True
            assert status in STATUSES
            assert reward is None or isinstance(reward, int | float)
        except (ValueError, LookupError, TypeError, AssertionError):
            raise BrokenProcessError(FORGED) from None
        self._number = ""
        return Verdict(status, reward, str(detail), seconds=time.monotonic() - self.since)

    def end(self) -> str:
        """Wait for its end, kill what is left of it, and return in words how it ended."""
        until = time.monotonic() + ENDING
        look = os.WEXITED | os.WNOWAIT | os.WNOHANG  # not reaped: its number stays its group's
        with contextlib.suppress(ChildProcessError):  # somebody else has reaped it
            while os.waitid(os.P_PID, self.process.pid, look) is None and time.monotonic() < until:
                time.sleep(0.002)
        self.kill()
        status = self.process.returncode
        if status < 0:
            return f"its process was ended by {signal.Signals(-status).name}"
        return f"its process ended with status {status}"

    def kill(self) -> None:
        """Kill it and whatever it started, and remove its temporary files."""
        if self.socket.fileno() < 0:
            return
        self.socket.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _send(self, message: Mapping[str, Any]) -> None:
        self.socket.sendall(json.dumps(message).encode() + b"\n")
