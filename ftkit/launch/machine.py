"""Other machines: whether one is this, how a command is run on it, what it says of itself."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from ftkit import __version__
from ftkit.core.errors import Fault, UserError, user_error
from ftkit.launch.devices import gpus
from ftkit.launch.hosts import Host
from ftkit.launch.local import is_free
from ftkit.launch.told import for_python
from ftkit.launch.where import PORTS

SSH = "FTKIT_SSH"
"""Variable of the environment: what takes the place of ssh and its options."""
OPTIONS = (
    *("-o", "BatchMode=yes", "-o", "ConnectTimeout=10"),
    *("-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3"),
)
"""ssh asks for no password, and gives up a machine that has said nothing for half a minute."""
UNREACHABLE = 255
"""ssh's exit status where there is no connection, or none any more."""
NO_FOLDER, NO_PYTHON = 91, 92
"""Exit statuses of the shell on a machine."""
LIMIT = 60.0
"""Seconds in which a machine must have said something of itself."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine says of itself."""

    version: str
    """Of ftkit."""
    gpus: int
    port: int
    """One that is free there, of those asked about; 0 = none is."""

    @classmethod
    def this(cls, port: int | None) -> Machine:
        """Look at this machine."""
        tried = [port] if port else random.sample(PORTS, 100)
        found = next((each for each in tried if is_free("", each)), 0)
        return cls(__version__, gpus(), found)


def ask(hosts: Sequence[Host], port: int | None) -> list[Machine]:
    """Return what each machine says of itself; all are asked at once.

    Args:
        hosts: the machines.
        port: where rank 0 is to listen; None = any that is free.

    Raises:
        UserError: naming each that cannot be reached, or on which a rank could not start.
    """
    if any(not is_here(host) for host in hosts):
        ssh()
    with ThreadPoolExecutor(len(hosts)) as pool:
        found = list(pool.map(lambda host: _asked(host, port), hosts))
    if faults := [each for each in found if isinstance(each, Fault)]:
        raise UserError(faults)
    return [each for each in found if isinstance(each, Machine)]


def shell(host: Host) -> list[str]:
    """Return the words that run a shell's text on a machine, which follows."""
    return ["/bin/sh", "-c"] if is_here(host) else [*ssh(), host.name]


def shell_text(command: Sequence[str], variables: Mapping[str, str]) -> str:
    """Return a shell's text that runs a command in this directory, whatever shell reads it."""
    folder, program = shlex.quote(str(Path.cwd())), shlex.quote(command[0])
    named = [f"{name}={value}" for name, value in variables.items()]
    told = shlex.join(["env", *named, *command])
    inner = f"cd {folder} || exit {NO_FOLDER}; [ -x {program} ] || exit {NO_PYTHON}; exec {told}"
    return f"exec /bin/sh -c {shlex.quote(inner)}"


def is_here(host: Host) -> bool:
    """Whether a machine is this one, by its name or an address of it."""
    if host.address in {"localhost", socket.gethostname()}:
        return True
    try:
        family, _, _, _, address = socket.getaddrinfo(host.address, None)[0]
    except OSError:
        return False
    with socket.socket(family) as probe:  # only an address of one's own can be bound
        try:
            probe.bind(address)
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


def _asked(host: Host, port: int | None) -> Machine | Fault:
    """Return what a machine says of itself, or why it says nothing."""
    command = [sys.executable, "-m", "ftkit.launch.machine", str(port or "")]
    try:
        told = subprocess.run(
            [*shell(host), shell_text(command, for_python())],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        late = isinstance(error, subprocess.TimeoutExpired)
        return _unreachable(host, f"no answer within {LIMIT:.0f} s" if late else str(error))
    if told.returncode == 0:
        return _understood(host, told.stdout)
    reason = (told.stderr.strip().splitlines() or [f"status {told.returncode}"])[-1]
    if told.returncode == UNREACHABLE:
        return _unreachable(host, reason)
    return _not_ready(host, told.returncode, reason)


def _understood(host: Host, text: str) -> Machine | Fault:
    try:
        found = Machine(**json.loads(text.splitlines()[-1]))
    except (ValueError, IndexError, TypeError):
        remedy = f"see that it has ftkit {__version__}, as here"
        return Fault(host.name, f"its answer was not understood: {text[-200:]!r}", remedy)
    if found.version != __version__:
        remedy = "install the same version on all machines"
        return Fault(host.name, f"it has ftkit {found.version}, and here is {__version__}", remedy)
    return found


def _unreachable(host: Host, reason: str) -> Fault:
    command = [word for word in ssh() if word not in OPTIONS]
    remedy = f"see that `{shlex.join([*command, host.name, 'true'])}` works without a password"
    return Fault(host.name, f"it cannot be reached: {reason}", remedy)


def _not_ready(host: Host, status: int, reason: str) -> Fault:
    if status == NO_FOLDER:
        remedy = "all machines need the recipe and its files under the same names"
        return Fault(host.name, f"there is no folder {Path.cwd()}", remedy)
    if status == NO_PYTHON:
        remedy = "install Python and ftkit under the same name on all machines"
        return Fault(host.name, f"there is no {sys.executable}", remedy)
    remedy = f"see that `{sys.executable} -m ftkit --version` works there"
    return Fault(host.name, f"ftkit does not start there: {reason}", remedy)


def _main() -> None:
    """Print what this machine says of itself, for ``ask``."""
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    sys.stdout.write(json.dumps(asdict(Machine.this(int(asked) if asked else None))) + "\n")


if __name__ == "__main__":
    _main()
