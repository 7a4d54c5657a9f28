"""What an examination finds, and how it goes on where something is broken."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Level = Literal["ok", "note", "problem"]
"""All is well; something that may matter; something that stops runs."""

T = TypeVar("T")

SOON = 20.0
"""Seconds that a probe may take."""
LATER = 120.0
"""Seconds for one that loads torch, which may lie on a slow disk."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    what: str
    """What was looked at, in a word or two."""
    found: str
    remedy: str = ""
    """What to do about it."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Something that looks at one side of the machine."""

    section: str
    """Under which its findings stand."""
    what: str
    """What it looks at, should it fail."""
    look: Callable[[], Iterable[Finding]]
    seconds: float = SOON
    """How long it may take."""


class BrokenError(Exception):
    """A program that was asked gave no answer."""


class Later(Generic[T]):
    """What a function returns, found beside everything else.

    A thread that hangs, in a file system that does not answer for one, is left behind.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        """Start the function."""
        self._make = make
        self._found: T
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = self._make()
        except Exception as error:  # it belongs to whoever asks for the result
            self._error = error

    def wait(self, seconds: float) -> T:
        """Return the result.

        Raises:
            TimeoutError: if it is not there after so many seconds.
            Exception: what the function raised.
        """
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise TimeoutError(f"no answer within {seconds:g} s")
        if self._error is not None:
            raise self._error
        return self._found


def examine(probes: Sequence[Probe]) -> Iterator[tuple[str, Finding]]:
    """Look at everything at once; yield section and finding, in the order of the probes.

    A probe that fails is a note, one that hangs a problem: a run would hang as well.
    """
    running = [(probe, Later(_all(probe))) for probe in probes]
    for probe, findings in running:
        try:
            for finding in findings.wait(probe.seconds):
                yield probe.section, finding
        except TimeoutError as error:
            remedy = "look why it hangs: a run that needs it would, too"
            yield probe.section, Finding("problem", probe.what, str(error), remedy)
        except BrokenError as error:
            yield probe.section, Finding("note", probe.what, f"could not be looked at: {error}")
        except Exception as error:  # whatever is broken, the rest is looked at
            found = f"could not be looked at: {type(error).__name__}: {error}"
            yield probe.section, Finding("note", probe.what, found)


def _all(probe: Probe) -> Callable[[], list[Finding]]:
    return lambda: list(probe.look())


def said(command: Sequence[str], *, seconds: float = SOON, given: str = "") -> str:
    """Return what a program prints.

    Args:
        command: the program and its arguments.
        seconds: how long it may take.
        given: what it reads.

    Raises:
        BrokenError: if it fails, is killed, is not there or takes longer, with its own words.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BrokenError(f"no answer within {seconds:g} s") from error
    except OSError as error:
        raise BrokenError(f"cannot be started: {error.strerror}") from error
    if done.returncode < 0:
        raise BrokenError(f"killed by signal {-done.returncode}")
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip() or "without a word").splitlines()
        raise BrokenError(f"status {done.returncode}: {words[-1].strip()}")
    return done.stdout


def size(count: float) -> str:
    """Return a number of bytes in words.

    >>> size(80 * 2**30), size(5 * 2**20), size(3 * 2**40)
    ('80 GiB', '5 MiB', '3 TiB')
    """
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    step = 0
    while count >= 1024 and step < len(units) - 1:  # noqa: PLR2004
        count, step = count / 1024, step + 1
    return f"{count:.3g} {units[step]}"
