"""``python -m ftkit`` and the command ``ftkit``: errors become lines and exit statuses."""

from __future__ import annotations

import os
import re
import sys
import time
import traceback
from typing import TYPE_CHECKING, NoReturn

from ftkit.core.errors import (
    INTERRUPTED,
    RUN_FAILED,
    USER_ERROR,
    RunError,
    StoppedError,
    UserError,
    disk_is_full,
)

if TYPE_CHECKING:
    from ftkit.launch.reports import Report

TELLING = 20.0
"""Seconds that the first rank has for saying what all have to say."""
LOCAL_RANK = re.compile(r"--local[_-]rank(=.*)?$")
"""What deepspeed's launcher adds to the arguments; LOCAL_RANK of the environment says the same."""


def main() -> NoReturn:
    """Run the command line; exit with 0, 2 (a user's error), 1 (a failed run) or 130 (Ctrl-C).

    As one of several ranks, started by ``ftkit train --gpus``, torchrun or deepspeed, likewise.
    """
    # Pydantic looks for plugins in the metadata of every installed package: a tenth of a second.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    sys.argv[1:] = [each for each in sys.argv[1:] if not LOCAL_RANK.match(each)]
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        _as_rank()
    if "FTKIT_CONTROL" in os.environ:
        from ftkit.launch.told import hear

        hear()
    try:
        from ftkit.cli import app

        app()
    except Exception as error:
        _debug()
        status, lines = said_of(error)
        _fail(lines, status)
    except KeyboardInterrupt:
        _debug()
        _fail(["interrupted"], INTERRUPTED)
    sys.exit(0)


def _as_rank() -> NoReturn:
    """Run the command line as one of several; how it failed is told once, by who knows best."""
    from ftkit.launch.rank import begin, rank_of
    from ftkit.launch.reports import report

    begin()
    rank, status, lines, shared = rank_of() or 0, 0, list[str](), False
    try:
        from ftkit.cli import app

        app()
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else RUN_FAILED
        lines = [exit_.code] if isinstance(exit_.code, str) else []
    except Exception as error:
        _debug()
        status, lines = said_of(error)
        shared = getattr(error, "shared", False)
    failed = status == RUN_FAILED or bool(lines)
    if failed:
        # before that is imported, all ranks of a machine have read the same
        alike = "torch" not in sys.modules
        told = report(rank, status, lines, shared=shared or alike)
        first = os.environ.get("LOCAL_RANK") == "0" if alike else rank == 0
        if not told.write():
            _tell(told, first=first)
    if "torch" in sys.modules:
        from ftkit.parallel.processes import leave

        leave(status, alone=failed)
    sys.exit(status)


def _tell(told: Report, *, first: bool) -> None:
    """Say how a rank failed that was started by torchrun or deepspeed.

    They end all ranks with the first that ends: one whose words another says too lets it do so.
    """
    if told.shared and not first:
        time.sleep(TELLING)
        return
    lines = [f"another rank is gone: {told.short}"] if told.secondary else told.lines
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.stderr.flush()


def said_of(error: Exception) -> tuple[int, list[str]]:
    """Return the exit status of an error, and what a person is told of it."""
    if isinstance(error, UserError):
        lines = [str(fault) for fault in error.faults]
        return error.status, [*lines, f"{len(lines)} faults"] if len(lines) > 1 else lines
    if isinstance(error, StoppedError):
        return error.status, ["interrupted"]
    if isinstance(error, RunError):
        return error.status, [f"the run failed: {error}"]
    if disk_is_full(error):
        place = getattr(error, "filename", None) or "the disk"
        remedy = "free some space, then run the command again"
        return USER_ERROR, [f"{place}: the disk is full; {remedy}"]
    return RUN_FAILED, traceback.format_exc().rstrip().splitlines()


def _debug() -> None:
    if os.environ.get("FTKIT_DEBUG") == "1":
        traceback.print_exc()


def _fail(lines: list[str], status: int) -> NoReturn:
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.exit(status)


if __name__ == "__main__":
    main()
