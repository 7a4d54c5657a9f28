"""``python -m ftkit`` and the command ``ftkit``: errors become lines and exit statuses."""

from __future__ import annotations

import os
import sys
import traceback
from typing import NoReturn

from ftkit.core.errors import USER_ERROR, RunError, UserError, disk_is_full

INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line; exit with 0, 2 (a user's error), 1 (a failed run) or 130 (Ctrl-C)."""
    # Pydantic looks for plugins in the metadata of every installed package: a tenth of a second.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        from ftkit.cli import app

        app()
    except UserError as error:
        _debug()
        lines = [str(fault) for fault in error.faults]
        if len(lines) > 1:
            lines.append(f"{len(lines)} faults")
        _fail(lines, error.status)
    except RunError as error:
        _debug()
        _fail([f"the run failed: {error}"], error.status)
    except Exception as error:
        if not disk_is_full(error):
            raise
        _debug()
        place = getattr(error, "filename", None) or "the disk"
        _fail(
            [f"{place}: the disk is full; free some space, then run the command again"], USER_ERROR
        )
    except KeyboardInterrupt:
        _debug()
        _fail(["interrupted"], INTERRUPTED)
    sys.exit(0)


def _debug() -> None:
    if os.environ.get("FTKIT_DEBUG") == "1":
        traceback.print_exc()


def _fail(lines: list[str], status: int) -> NoReturn:
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.exit(status)


if __name__ == "__main__":
    main()
