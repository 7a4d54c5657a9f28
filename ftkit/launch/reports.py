"""What a rank leaves behind when it fails, for whoever started it: a file each."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = "FTKIT_REPORTS"
"""Variable of the environment: the folder, in which ranks may write."""
OVER = "over"
"""A file there that says: a rank has failed, do not wait for it."""

OF_OTHERS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "recvValueWithTimeout failed",
    "Socket Timeout",
    "failed to recv",
    "NCCL",
    "gloo",
)
"""Signs in an error that it is another rank's fault."""


@dataclass(frozen=True, slots=True)
class Report:
    """How a rank failed."""

    rank: int
    host: str
    seconds: float
    """Since the epoch."""
    status: int
    lines: tuple[str, ...]
    """What a person is to be told."""
    shared: bool = False
    """Whether every rank says the same."""

    @property
    def secondary(self) -> bool:
        """Whether it only says that another rank is gone."""
        last = self.lines[-1] if self.lines else ""
        return any(sign.lower() in last.lower() for sign in OF_OTHERS)

    def write(self) -> bool:
        """Leave it in the folder, if there is one; say whether there was."""
        folder = os.environ.get(FOLDER)
        if folder is None:
            return False
        try:
            (Path(folder) / f"rank-{self.rank}.json").write_text(json.dumps(asdict(self)))
        except OSError:
            return False
        return True


def report(rank: int, status: int, lines: Sequence[str], *, shared: bool = False) -> Report:
    """Return a report of this process, now."""
    return Report(rank, socket.gethostname(), time.time(), status, tuple(lines), shared)


def reports_in(folder: Path) -> list[Report]:
    """Return the reports that ranks left, the one that says most first.

    That is the earliest that is not about another rank's end.
    """
    found = []
    for path in folder.glob("rank-*.json"):
        try:
            row = json.loads(path.read_text())
        except (OSError, ValueError):  # it was killed as it wrote
            continue
        found.append(Report(**{**row, "lines": tuple(row["lines"])}))
    return sorted(found, key=lambda each: (each.secondary, each.seconds, each.rank))
