"""JSONL files that a run may be writing still, or could not write to the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftkit.core.errors import user_error

STEP = b'{"step": '
"""How a run's lines begin."""


class GrowingFile:
    """The lines of a JSONL file, one at a time; a last line that was cut is left out.

    Attributes:
        cut: the number of the line that was left out, once all were read; None if there is none.
    """

    def __init__(self, path: Path) -> None:
        """Name a file."""
        self.path = path
        self.cut: int | None = None

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the lines that are not blank, with their numbers from 1.

        Raises:
            UserError: if the file cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield number, line
        except OSError as error:
            raise user_error(
                str(self.path), f"cannot be read: {error.strerror}", "check the file"
            ) from error

    def rows(self, step: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the object of each line, with the line's number.

        Args:
            step: lines that begin with another step are passed over unread.

        Raises:
            UserError: if a line is broken that is not the last, or is no object with a ``step``.
        """
        self.cut = None
        lines = self.lines()
        wanted = STEP if step is None else STEP + f"{step},".encode()
        for number, line in lines:
            if line.startswith(STEP) and not line.startswith(wanted):
                continue
            row = self.row(number, line, strict=False)
            if row is None:
                if next(lines, None) is not None:
                    self.row(number, line, strict=True)
                self.cut = number
                return
            yield number, row

    def last_step(self) -> int | None:
        """Return the step that the last line begins with, of those that begin with one."""
        step = None
        for _, line in self.lines():
            digits = line[len(STEP) : line.find(b",")]
            if line.startswith(STEP) and digits.isdigit():
                step = int(digits)
        return step

    def row(self, number: int, line: bytes, *, strict: bool) -> dict[str, Any] | None:
        """Return the object of a line; None where it is broken.

        Args:
            number: the line's.
            line: its bytes.
            strict: whether a broken line is an error.

        Raises:
            UserError: if it is, or the line is no object with a ``step``.
        """
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if not strict:
                return None
            raise user_error(
                f"{self.path}:{number}", f"broken JSON: {error}", "mend or remove the line"
            ) from error
        step = row.get("step") if isinstance(row, dict) else None
        if not isinstance(row, dict) or not isinstance(step, int) or isinstance(step, bool):
            raise user_error(
                f"{self.path}:{number}",
                "no line of a run: it is no object with a whole number as 'step'",
                "bring the run's own file back",
            )
        return row
