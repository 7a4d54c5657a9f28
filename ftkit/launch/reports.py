"""What a rank leaves behind when it fails, a file each, and what its launcher makes of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Collection, Mapping, Sequence
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

ASKED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
"""Signals that ask a run to stop; a shell's status of each is 128 and its number."""


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
    follows: bool = False
    """Whether it is known to say only that another rank is gone."""

    @property
    def secondary(self) -> bool:
        """Whether it only says that another rank is gone."""
        last = self.lines[-1] if self.lines else ""
        return self.follows or any(sign.lower() in last.lower() for sign in OF_OTHERS)

    @property
    def short(self) -> str:
        """The line that says most: the last, which of a traceback is the error."""
        return self.lines[-1] if self.lines else f"it ended with status {self.status}"

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


def report(
    rank: int, status: int, lines: Sequence[str], *, shared: bool = False, follows: bool = False
) -> Report:
    """Return a report of this process, now."""
    host, now = socket.gethostname(), time.time()
    return Report(rank, host, now, status, tuple(lines), shared, follows)


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


def ending(
    ended: Mapping[int, int], found: Sequence[Report], killed: Collection[int] = ()
) -> tuple[int, list[str]]:
    """Return the exit status of a launcher, and what it says: what came first, first.

    Args:
        ended: of each rank how it ended, as ``subprocess`` says; in that order.
        found: what they left (``reports_in``).
        killed: those that the launcher ended itself.
    """
    failed = {rank: status for rank, status in ended.items() if status and rank not in killed}
    own = [each for each in found if not each.secondary]
    gone = {
        rank: signal.Signals(-status)
        for rank, status in failed.items()
        if status < 0 and -status not in ASKED
    }
    lines = [f"rank {r} was killed by {s.name}{_guess(s)}" for r, s in gone.items()]
    asked = next((number for s in failed.values() if (number := _asked(s))), None)
    if asked and (_asked(next(iter(failed.values()))) or not (own or gone)):
        return 128 + asked, _of_a_stop(asked, failed, killed, found)
    if own:
        where = [] if own[0].shared else [f"rank {own[0].rank} on {own[0].host} failed first:"]
        lines += [*where, *own[0].lines]
        lines += [f"then also rank {e.rank}: {e.short}" for e in own[1:] if not e.shared]
    elif found and not gone:
        lines.append(f"rank {found[0].rank} on {found[0].host}: {found[0].short}")
    elif failed and not gone:
        lines += [f"rank {rank} ended with status {status}" for rank, status in failed.items()]
    if killed:
        lines.append(f"ranks {', '.join(map(str, sorted(killed)))} were ended")
    if not failed:
        return (128 + signal.SIGINT if killed else 0), lines
    return (own[0].status if own and not gone else 1), lines


def _of_a_stop(
    asked: signal.Signals,
    failed: Mapping[int, int],
    killed: Collection[int],
    found: Sequence[Report],
) -> list[str]:
    """Say of ranks that were asked to stop what they have not said themselves."""
    said = [line for each in found[:1] if _asked(each.status) for line in each.lines]
    if said or (not killed and set(failed.values()) == {128 + asked}):
        return said
    early = "stopped before the first step of this start; the same command with --resume goes on"
    return [f"{asked.name}: {early}"]


def _asked(status: int) -> signal.Signals | None:
    """Return the signal by which a process was asked to stop; None if it was not.

    >>> _asked(143), _asked(-10), _asked(-9), _asked(1)
    (<Signals.SIGTERM: 15>, <Signals.SIGUSR1: 10>, None, None)
    """
    number = -status if status < 0 else status - 128
    return signal.Signals(number) if number in ASKED else None


def _guess(number: signal.Signals) -> str:
    return ": perhaps for want of memory (see dmesg)" if number == signal.SIGKILL else ""
