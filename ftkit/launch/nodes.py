"""Starts a run on several machines: on each the same command, by ssh or here.

What runs on a machine is a launcher of its ranks (``local``).  It is told who it is by variables
(``where``), and what signals there were by its standard input, whose end means that nobody is there
any more.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from ftkit.core.errors import Fault, UserError, user_error
from ftkit.launch.hosts import Host
from ftkit.launch.local import GRACE, HANDED_ON, LOOK
from ftkit.launch.where import MASTER, NODE, NODES

SSH = "FTKIT_SSH"
"""Variable of the environment: what takes the place of ssh and its options."""
OPTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10")
CONTROL = "FTKIT_CONTROL"
"""Variable of the environment: set where standard input brings the numbers of signals."""
SENT = ("FTKIT_", "HF_", "NCCL_", "GLOO_", "TORCH_", "OMP_", "DS_", "CUDA_", "TOKENIZERS_")
"""How the names of variables begin that other machines are given, beside PATH and PYTHONPATH."""
UNREACHABLE = 255
"""ssh's exit status where it could not connect."""


@dataclass
class Nodes:
    """The machines of a run while it runs."""

    hosts: Sequence[Host]
    port: int
    command: Sequence[str]
    """Program and arguments, the same on each."""
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse machines that cannot be reached.

        Raises:
            UserError: naming each of them.
        """
        if any(not is_here(host) for host in self.hosts):
            ssh()
        with ThreadPoolExecutor(max(len(self.hosts), 1)) as pool:
            found = [fault for fault in pool.map(_fault_of, self.hosts) if fault is not None]
        if found:
            raise UserError(found)

    def lines(self) -> list[str]:
        """Return what is run, a line for each machine."""
        return [
            f"{host.name}: {shlex.join([*_prefix(host), self._there(number)])}"
            for number, host in enumerate(self.hosts)
        ]

    def run(self) -> int:
        """Start them, wait for them, and return the exit status: that of the first that failed."""
        before = {each: signal.signal(each, self._hand_on) for each in HANDED_ON}
        try:
            for number, host in enumerate(self.hosts):
                shell = _prefix(host) or ["/bin/sh", "-c"]
                self.running[number] = subprocess.Popen(
                    [*shell, self._there(number)], stdin=subprocess.PIPE, start_new_session=True
                )
            return self._wait()
        finally:
            self._end()
            for each, handler in before.items():
                signal.signal(each, handler)

    def _there(self, number: int) -> str:
        """Return what a shell on a machine is told to do."""
        own = {
            **{name: value for name, value in os.environ.items() if name.startswith(SENT)},
            **{n: os.environ[n] for n in ("PATH", "PYTHONPATH") if n in os.environ},
            NODE: str(number),
            NODES: str(len(self.hosts)),
            MASTER: f"{self.hosts[0].address}:{self.port}",
            CONTROL: "1",
        }
        named = [f"{name}={value}" for name, value in sorted(own.items())]
        return f"cd {shlex.quote(str(Path.cwd()))} && exec " + shlex.join(
            ["env", *named, *self.command]
        )

    def _wait(self) -> int:
        first: tuple[int, int] | None = None
        failed_at: float | None = None
        left = set(self.running)
        while left:
            for number in sorted(left):
                if (status := self.running[number].poll()) is not None:
                    left.discard(number)
                    if status and first is None:
                        first, failed_at = (number, status), time.monotonic()
            if failed_at is not None and time.monotonic() - failed_at > GRACE:
                break
            time.sleep(LOOK)
        if first is None:
            return 0
        number, status = first
        if status == UNREACHABLE:
            sys.stderr.write(f"{self.hosts[number].name}: the connection was lost\n")
        return status if 0 < status < UNREACHABLE else 1

    def _hand_on(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (the form)
        for process in self.running.values():
            if process.poll() is None and process.stdin is not None:
                try:
                    process.stdin.write(f"{number}\n".encode())
                    process.stdin.flush()
                except OSError:  # it has just ended
                    continue

    def _end(self) -> None:
        """Close what tells them of us, upon which they end their ranks; then wait."""
        for process in self.running.values():
            if process.stdin is not None:
                try:
                    process.stdin.close()
                except OSError:
                    continue
        for process in self.running.values():
            try:
                process.wait(2 * GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def is_here(host: Host) -> bool:
    """Whether a machine is this one, by its name or an address of it."""
    if host.address in {"localhost", "127.0.0.1", socket.gethostname()}:
        return True
    try:
        address = socket.gethostbyname(host.address)
    except OSError:
        return False
    with socket.socket() as probe:  # only an address of one's own can be bound
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def ssh(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the command that runs another on a machine whose name follows.

    Raises:
        UserError: if there is no such program.
    """
    command = shlex.split(environment.get(SSH, "")) or ["ssh", *OPTIONS]
    if shutil.which(command[0], path=environment.get("PATH")) is None:
        remedy = f"install it, or name another program by {SSH}"
        raise user_error(command[0], "there is no such program, and other machines need it", remedy)
    return command


def _prefix(host: Host) -> list[str]:
    return [] if is_here(host) else [*ssh(), host.name]


def _fault_of(host: Host) -> Fault | None:
    """Say why a machine cannot be reached; None if it can."""
    if is_here(host):
        return None
    try:
        tried = subprocess.run(
            [*ssh(), host.name, "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Fault(host.name, f"it cannot be reached: {error}", "take it out of the hostfile")
    if tried.returncode == 0:
        return None
    reason = (tried.stderr.strip().splitlines() or [f"status {tried.returncode}"])[-1]
    remedy = f"see that `{shlex.join([*ssh(), host.name, 'true'])}` works without a password"
    return Fault(host.name, f"it cannot be reached: {reason}", remedy)
