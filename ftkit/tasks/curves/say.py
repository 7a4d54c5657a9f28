"""What is said of a picture: how it is drawn, what is special about its lines, and all as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ftkit.tasks.curves.line import LATE, Figure, Line
from ftkit.tasks.curves.log import EVAL
from ftkit.tasks.visible import in_a_line


def how_drawn(lines: Sequence[Line], measures: Sequence[str], width: int) -> list[str]:
    """Say how it is drawn."""
    told = []
    training = [name for name in measures if not name.startswith(EVAL)]
    if training and width > 1:
        told.append(f"Measures of training are averaged over {width} steps; held-out ones are not.")
    bands = []
    if any(len(line.runs) > 1 for line in lines):
        bands.append("mean ± standard error over the runs of a line")
    if any(len(line.runs) == 1 for line in lines) and len(training) < len(measures):
        bands.append("of a single run the 95 % interval over held-out rows")
    if bands:
        told.append(f"Bands: {'; '.join(bands)}.")
    methods = {line.runs[0].recipe.get("method.name") for line in lines}
    if "loss" in measures and len(methods) > 1:
        told.append("Losses of different methods are different quantities: compare their shape.")
    return told


def how_final(lines: Sequence[Line]) -> str:
    """Say what the final figures are."""
    told = (
        f"Final figures: the last evaluation; of training the mean of the last 1/{LATE} of steps."
    )
    several = any(len(line.runs) > 1 for line in lines)
    return f"{told} Intervals of several runs: Student's, 95 %, over the runs." if several else told


def remarks(lines: Sequence[Line]) -> list[str]:
    """Say what is special about lines and runs."""
    told = []
    for line in lines:
        told += [f"{line.label}: {note}" for note in line.notes]
        for log in line.runs:
            name = line.label if len(line.runs) == 1 else in_a_line(str(log.path))
            told += [f"{name}: {note}" for note in log.notes]
    return told


def told_as_json(
    lines: Sequence[Line],
    measures: Sequence[str],
    differ: Mapping[str, Sequence[str]],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Return what is printed as JSON."""
    return {
        "measures": list(measures),
        "lines": [
            {
                "label": line.label,
                "method": line.runs[0].method,
                "detail": line.detail,
                "runs": [
                    {
                        "path": str(log.path),
                        "seed": log.recipe.get("seed"),
                        "status": log.status,
                        "step": log.steps[-1],
                        "tokens": log.tokens[-1],
                    }
                    for log in line.runs
                ],
                "final": {name: _figure(line.finals.get(name)) for name in measures},
                "differs": {key: values[n] for key, values in differ.items()},
            }
            for n, line in enumerate(lines)
        ],
        "notes": list(notes),
    }


def _figure(figure: Figure | None) -> dict[str, Any] | None:
    if figure is None:
        return None
    interval = None if figure.interval is None else list(figure.interval)
    return {"value": figure.value, "interval": interval, "runs": figure.runs}
