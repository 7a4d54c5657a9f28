"""The file that names the machines of a run: ``HOST slots=N`` a line, as DeepSpeed reads it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftkit.core.errors import Fault, UserError, user_error

NAME = re.compile(r"(?:\w[\w.-]*@)?[A-Za-z0-9_][\w.:-]*")
"""A name or an address, with a user before it or not."""
LOOPBACK = ("localhost", "127.", "::1")
"""How names begin that mean another machine on each."""
FORM = "write HOST slots=N"


@dataclass(frozen=True, slots=True)
class Host:
    """A machine."""

    name: str
    slots: int | None = None
    """Ranks that it has room for; None = that is not said."""

    @property
    def address(self) -> str:
        """What the other machines reach it by.

        >>> Host("me@node7").address
        'node7'
        """
        return self.name.rpartition("@")[2]


def read_hosts(file: str, nodes: int | None) -> list[Host]:
    """Return the first machines of a file.

    Args:
        file: the hostfile.
        nodes: how many; None = all.

    Raises:
        UserError: if it cannot be read, with every line that is no machine; or has too few.
    """
    place = f"--hostfile {file}"
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        remedy = "give a file with a line HOST slots=N for each machine"
        raise user_error(place, f"it cannot be read: {reason}", remedy) from error
    hosts, faults = list[Host](), list[Fault]()
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        found = list(_faults(words, hosts))
        faults += [Fault(f"{file}:{number}", said, remedy) for said, remedy in found]
        if not found:
            slots = int(words[1].removeprefix("slots=")) if len(words) > 1 else None
            hosts.append(Host(words[0], slots))
    if faults:
        raise UserError(faults)
    if not hosts:
        raise user_error(place, "it names no machine", f"{FORM}, a line each")
    if nodes is not None and nodes > len(hosts):
        found_ = f"{nodes} machines are asked for, and it names {len(hosts)}"
        raise user_error(place, found_, f"write --nodes {len(hosts)}, or name more")
    used = hosts[:nodes]
    if len(used) > 1 and (local := [h.name for h in used if h.address.startswith(LOOPBACK)]):
        found_ = f"on each machine {local[0]} is that machine itself"
        raise user_error(place, found_, "write a name or an address by which the others know it")
    return used


def slots_of(hosts: Sequence[Host], file: str) -> int | None:
    """Return how many ranks each machine has room for; None where that is not said.

    Raises:
        UserError: if it is not the same for all.
    """
    found = {host.slots for host in hosts if host.slots is not None}
    if len(found) > 1:
        told = ", ".join(f"{h.name} {'nothing' if h.slots is None else h.slots}" for h in hosts)
        raise user_error(
            f"--hostfile {file}",
            f"machines have different numbers of slots: {told}",
            f"write the same for each, or --gpus {min(found)}, which counts for all",
        )
    return found.pop() if found else None


def _faults(words: Sequence[str], before: Sequence[Host]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a line, and what to do."""
    name, *rest = words
    if not NAME.fullmatch(name):
        yield f"{name!r} is no name of a machine", FORM
    elif (count := _count_after(name)) is not None:
        yield f"{name!r} is no name of a machine", f"write {name.rpartition(':')[0]} slots={count}"
    elif Host(name).address in {host.address for host in before}:
        yield f"{name} is there already", "remove one; slots says how many ranks it has room for"
    if len(rest) > 1:
        yield f"{' '.join(rest)!r} is more than slots=N", FORM
    for word in rest if len(rest) == 1 else ():
        key, _, value = word.partition("=")
        if key != "slots":
            guess = next((each for each in (key, value) if each.isdecimal()), "N")
            yield f"{word!r} is not known", f"did you mean slots={guess}?"
        elif not (value.isascii() and value.isdecimal()) or int(value) < 1:
            yield f"{value!r} is no number of ranks", "write slots=N, such as slots=8"


def _count_after(name: str) -> str | None:
    """Return the number in ``node1:8``, as MPI's files have it; None of an address of IPv6.

    >>> _count_after("node1:8"), _count_after("node1"), _count_after("fd00::8")
    ('8', None, None)
    """
    _, colon, count = name.rpartition(":")
    if not colon:
        return None
    try:
        ipaddress.IPv6Address(Host(name).address)
    except ValueError:
        return count or "N"
    return None
