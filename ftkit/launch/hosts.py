"""The file that names the machines of a run: ``HOST slots=N`` a line, as DeepSpeed reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftkit.core.errors import Fault, UserError, user_error

NAME = re.compile(r"(?:[\w.-]+@)?[A-Za-z0-9_][\w.:-]*")
"""A name or an address, with a user before it or not."""


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
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise user_error(
            f"--hostfile {file}", f"it cannot be read: {reason}", "give a file of HOST slots=N"
        ) from error
    hosts, faults = list[Host](), list[Fault]()
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        found = list(_faults(words, [host.name for host in hosts]))
        faults += [Fault(f"{file}:{number}", said, remedy) for said, remedy in found]
        if not found:
            slots = int(words[1].removeprefix("slots=")) if len(words) > 1 else None
            hosts.append(Host(words[0], slots))
    if faults:
        raise UserError(faults)
    if not hosts:
        raise user_error(
            f"--hostfile {file}", "it names no machine", "write HOST slots=N, a line each"
        )
    if nodes is not None and nodes > len(hosts):
        found_ = f"{nodes} machines are asked for, and it names {len(hosts)}"
        raise user_error(f"--hostfile {file}", found_, f"write --nodes {len(hosts)}, or name more")
    return hosts[:nodes]


def _faults(words: Sequence[str], before: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a line, and what to do."""
    name, *rest = words
    if not NAME.fullmatch(name):
        yield f"{name!r} is no name of a machine", "write HOST slots=N"
    elif name in before:
        yield f"{name} is there already", "remove one; slots says how many ranks it has room for"
    for word in rest[:1]:
        key, _, value = word.partition("=")
        if key != "slots":
            yield f"{word!r} is not known", "did you mean slots=N?"
        elif not value.isdecimal() or int(value) < 1:
            yield f"{value!r} is no number of ranks", "write slots=N, such as slots=8"
    if len(rest) > 1:
        yield f"{' '.join(rest[1:])!r} is more than a machine and its slots", "write HOST slots=N"
