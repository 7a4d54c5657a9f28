"""What a run says of itself: its recipe, its measures step by step, how it ended."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftkit.core.errors import Fault, UserError, user_error
from ftkit.recipe import flatten
from ftkit.recipe.nodes import plain
from ftkit.recipe.yaml_file import parse
from ftkit.tasks.curves.jsonl import GrowingFile

EVAL = "eval."
"""What stands before the names of held-out measures."""

MOST_NAMED = 6
"""So many runs within a folder are named, where a folder of runs was given for a run."""


@dataclass(frozen=True, slots=True)
class Point:
    """A measure at a step."""

    value: float
    low: float | None = None
    high: float | None = None
    """The ends of its 95 % interval, where it has one."""


@dataclass
class RunLog:
    """A run as its files tell it."""

    path: Path
    recipe: Mapping[str, Any]
    """``path -> value``, as ``flatten`` gives it."""
    measures: dict[str, dict[int, Point]] = field(default_factory=dict)
    """For each measure its points by step; held-out measures have ``eval.`` before their name."""
    tokens: list[int] = field(default_factory=list)
    """Tokens seen up to and with each step."""
    steps: list[int] = field(default_factory=list)
    """The steps that were made, in order."""
    planned: int | None = None
    """How many it was to make, where that is known."""
    status: str = "unfinished"
    """``finished``, ``stopped``, ``failed``; ``unfinished`` where it said nothing at its end."""
    notes: list[str] = field(default_factory=list)

    @property
    def method(self) -> str:
        """The method's name, or that of its preset."""
        name, preset = self.recipe.get("method.name"), self.recipe.get("method.preset")
        return str(preset or name or "unknown")

    def tokens_at(self, step: int) -> int:
        """Return how many tokens were seen after a step."""
        place = bisect_right(self.steps, step)
        return self.tokens[place - 1] if place else 0


def read_runs(folders: Sequence[str]) -> list[RunLog]:
    """Read runs.

    Args:
        folders: where they lie.

    Raises:
        UserError: of all that is wrong with any of them.
    """
    logs: list[RunLog] = []
    faults: list[Fault] = []
    seen: set[Path] = set()
    for name in folders:
        try:
            if (real := Path(name).resolve()) in seen:
                raise user_error(name, "is named twice", "name each run once")
            seen.add(real)
            logs.append(read_run(Path(name)))
        except UserError as error:
            faults += error.faults
    if faults:
        raise UserError(faults)
    return logs


def require_run(folder: Path) -> None:
    """Refuse what is no run.

    Raises:
        UserError: naming the runs in it, if it is a folder of runs.
    """
    remedy = "give the folder of a run, with its recipe.yaml and metrics.jsonl"
    if not folder.exists():
        raise user_error(str(folder), "there is no such folder", remedy)
    if not folder.is_dir():
        raise user_error(str(folder), "is a file and no run's folder", remedy)
    if (folder / "recipe.yaml").is_file():
        return
    inner = sorted(str(each.parent) for each in folder.glob("*/recipe.yaml"))
    if inner:
        more = " ..." if len(inner) > MOST_NAMED else ""
        remedy = f"give the runs in it: {' '.join(inner[:MOST_NAMED])}{more}"
    raise user_error(str(folder), "no run began here: it has no recipe.yaml", remedy)


def read_run(folder: Path) -> RunLog:
    """Read one run.

    Raises:
        UserError: if the folder holds none, it has made no step yet, or its files are broken.
    """
    require_run(folder)
    log = RunLog(folder, _recipe(folder / "recipe.yaml"))
    faults: list[Fault] = []
    for name, prefix in (("metrics.jsonl", ""), ("eval.jsonl", EVAL)):
        try:
            _read(log, folder / name, prefix)
        except UserError as error:
            faults += error.faults
    if faults:
        raise UserError(faults)
    if not log.steps:
        raise user_error(
            str(folder), "the run has made no step yet", "wait for its first steps, or leave it out"
        )
    _ending(log)
    return log


def _recipe(file: Path) -> dict[str, Any]:
    """Return a recipe's values by their paths; it need not be valid for the ftkit of today."""
    faults: list[Fault] = []
    try:
        tree = parse(file.read_text(encoding="utf-8"), str(file), faults)
    except (OSError, UnicodeDecodeError) as error:
        raise user_error(str(file), f"cannot be read: {error}", "bring it back") from error
    if tree is None or not isinstance(tree.value, dict):
        faults.append(Fault(str(file), "no recipe: it is not a map", "bring it back as it was"))
    if faults or tree is None:
        raise UserError(faults)
    return flatten(plain(tree))


def _read(log: RunLog, path: Path, prefix: str) -> None:
    """Take up the lines of one file."""
    if not path.is_file():
        return
    file = GrowingFile(path)
    before = -1
    lost: dict[str, int] = {}
    for number, row in file.rows():
        step = row["step"]
        if step < before:
            raise user_error(
                f"{path}:{number}",
                f"step {step} comes after step {before}",
                "the file is of two runs; bring the run's own back",
            )
        before = step
        if not prefix:
            _count(log, step, row.get("tokens"))
        for name, told in row.items():
            _take(log, lost, prefix + name, step, told)
    if file.cut is not None:
        log.notes.append(f"{path.name}: line {file.cut} was cut while it was written; left out")
    for name, count in lost.items():
        log.notes.append(f"{name}: no number at {count:,} of its steps; left out there")


def _count(log: RunLog, step: int, tokens: Any) -> None:
    """Add up the tokens; a step that is told twice counts as it was told last."""
    if log.steps and log.steps[-1] == step:
        log.steps.pop()
        log.tokens.pop()
    known = isinstance(tokens, int | float) and math.isfinite(tokens)
    log.tokens.append((log.tokens[-1] if log.tokens else 0) + (int(tokens) if known else 0))
    log.steps.append(step)


def _take(log: RunLog, lost: dict[str, int], name: str, step: int, told: Any) -> None:
    """Note a measure, if it is one."""
    if name.removeprefix(EVAL) in {"step", "n"} or isinstance(told, bool | str | list):
        return
    interval = None
    if isinstance(told, Mapping):
        if "value" not in told:
            return
        told, interval = told["value"], told.get("interval")
    if not isinstance(told, int | float) or not math.isfinite(told):
        lost[name] = lost.get(name, 0) + 1
        return
    low, high = interval if isinstance(interval, list) else (None, None)
    log.measures.setdefault(name, {})[step] = Point(float(told), low, high)


def _ending(log: RunLog) -> None:
    """Find out how the run ended, if it did."""
    last = log.steps[-1]
    try:
        summary = json.loads((log.path / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        summary = {}
    said = summary if isinstance(summary, dict) else {}
    planned = said.get("steps") or log.recipe.get("train.steps")
    log.planned = planned if isinstance(planned, int) else None
    if said.get("step") == last:  # else it is of an earlier life, and the run goes on
        log.status = str(said.get("status", log.status))
    if log.status == "finished":
        return
    of = f" of {log.planned:,}" if log.planned and log.planned != last else ""
    why = {
        "stopped": "was stopped",
        "failed": "failed",
        "unfinished": "has not said that it ended: it goes on still, or was cut off",
    }.get(log.status, log.status)
    log.notes.append(f"{why}; drawn up to step {last:,}{of}")
