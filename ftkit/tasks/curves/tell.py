"""What tells lines apart: their recipes and their names."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftkit.tasks.curves.log import RunLog
from ftkit.tasks.visible import in_a_line

ALONE = frozenset({"seed", "run"})
"""Keys by which the recipes of one line may differ."""

ABSENT = "\u2014"
"""Where a recipe has no such key."""

NAMED = ("method.name", "method.preset")
"""Keys that a line's method says already."""

TELLING = ("method", "train", "sample", "model", "seed")
"""Sections whose keys stand beside a line's name, the first first."""

FEW = 3
"""So many keys are told beside a line's name; a table has all."""

SHORT = 24
"""The longest value that stands beside a line's name."""


def group(logs: Sequence[RunLog], free: frozenset[str], *, each: bool) -> list[list[RunLog]]:
    """Return the runs of each line, in the order in which they were given.

    Args:
        logs: the runs.
        free: keys, or sections, by which the recipes of one line may differ.
        each: give each run a line of its own.
    """
    if each:
        return [[log] for log in logs]
    lines: dict[str, list[RunLog]] = {}
    for log in logs:
        same = {key: value for key, value in log.recipe.items() if not _within(key, free)}
        lines.setdefault(json.dumps(same, sort_keys=True, default=str), []).append(log)
    return list(lines.values())


def _within(key: str, free: frozenset[str]) -> bool:
    return any(f"{key}.".startswith(f"{each}.") for each in free)


def differences(lines: Sequence[Sequence[RunLog]]) -> dict[str, list[str]]:
    """Return each key by which lines differ, with what it is in each of them.

    Args:
        lines: the runs of each line.

    Returns:
        ``key -> a text for each line``; a line whose runs differ has all their values.
    """
    keys = dict.fromkeys(key for runs in lines for log in runs for key in log.recipe)
    found = {}
    for key in keys:
        values = [
            ", ".join(dict.fromkeys(_text(log.recipe, key) for log in runs)) for runs in lines
        ]
        if key != "run" and len(set(values)) > 1:
            found[key] = values
    return found


def _text(recipe: Mapping[str, Any], key: str) -> str:
    if key not in recipe:
        return ABSENT
    value = recipe[key]
    return in_a_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def details(
    lines: Sequence[Sequence[RunLog]], names: Sequence[str], differ: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return for each line its method and what sets it apart from most others, in few words.

    What its name says is not said again.

    The constants of a method are compared with those of the same method only: those of another
    one, which does not have them, say nothing.
    """
    methods = [str(runs[0].recipe.get("method.name")) for runs in lines]
    telling = [key for key in differ if key.split(".")[0] in TELLING and key not in NAMED]
    order = sorted(telling, key=lambda key: TELLING.index(key.split(".")[0]))
    told = []
    for i, runs in enumerate(lines):
        said = []
        for key in order:
            peers = [
                value
                for value, method in zip(differ[key], methods, strict=True)
                if method == methods[i] or not key.startswith("method.")
            ]
            if _unusual(differ[key][i], peers):
                said.append(f"{key.rsplit('.', 1)[-1]} {differ[key][i]}")
        more = [f"{len(said) - FEW} more keys"] if len(said) > FEW else []
        seeds = [f"{len(runs)} runs"] if len(runs) > 1 else []
        method = [runs[0].method] if runs[0].method != names[i] else []
        told.append(", ".join([*method, *said[:FEW], *more, *seeds]))
    return told


def _unusual(value: str, peers: Sequence[str]) -> bool:
    """Whether a value is short, and not that of most.

    >>> _unusual("a", ["a", "a", "b"]), _unusual("b", ["a", "a", "b"]), _unusual("a", ["a", "b"])
    (False, True, True)
    """
    count = Counter(peers)
    usual = count[value] * 2 > len(peers) or len(count) == 1
    return not usual and value != ABSENT and len(value) <= SHORT


def labels(lines: Sequence[Sequence[RunLog]]) -> list[str]:
    """Return a name for each line: what its runs' folders have in common and others have not."""
    folders = [[log.path for log in runs] for runs in lines]
    everywhere = _shared([path for paths in folders for path in paths])
    names = []
    for runs, paths in zip(lines, folders, strict=True):
        mine = [part for part in _shared(paths) if part not in everywhere]
        stem = "" if mine or len(paths) == 1 else _stem([path.name for path in paths])
        names.append("/".join(mine) or stem or _alone(paths, runs[0].method))
    return _distinct([in_a_line(name) for name in names])


def _shared(paths: Sequence[Path]) -> list[str]:
    """Return the parts that are in all paths, in the order of the first."""
    parts = [path.resolve().parts for path in paths]
    return [part for part in parts[0] if all(part in other for other in parts)]


def _stem(names: Sequence[str]) -> str:
    """Return how all names begin, without what counts them.

    >>> _stem(["grpo-seed-0", "grpo-seed-1"]), _stem(["a", "b"])
    ('grpo', '')
    """
    first, last = min(names), max(names)
    same = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
    )
    return re.sub(r"[-_. ]*(seed|s)?[-_. ]*$", "", first[:same])


def _alone(paths: Sequence[Path], method: str) -> str:
    return method if len(paths) > 1 else paths[0].resolve().name


def _distinct(names: Sequence[str]) -> list[str]:
    """Number names that come more than once.

    >>> _distinct(["a", "b", "a"])
    ['a 1', 'b', 'a 2']
    """
    count, seen = Counter(names), Counter[str]()
    told = []
    for name in names:
        seen[name] += 1
        told.append(name if count[name] == 1 else f"{name} {seen[name]}")
    return told
