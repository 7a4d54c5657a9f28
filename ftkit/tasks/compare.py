"""``ftkit compare``: the training dynamics of several runs in one picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ftkit import __version__
from ftkit.core.errors import Fault, UserError, user_error
from ftkit.tasks.curves.files import MAKER, targets, write
from ftkit.tasks.curves.line import TITLES, Line, build_line, choose
from ftkit.tasks.curves.log import RunLog, read_runs
from ftkit.tasks.curves.page import page
from ftkit.tasks.curves.picture import draw
from ftkit.tasks.curves.say import how_drawn, how_final, remarks, told_as_json
from ftkit.tasks.curves.style import MOST_LINES, short
from ftkit.tasks.curves.tell import ALONE, details, differences, group, labels
from ftkit.tasks.visible import in_a_line

SMOOTH = 25
"""By default a training measure is averaged over this part of the longest run's steps."""

CELL = 24
"""About the width of a column of figures."""


def compare(
    runs: Sequence[str],
    *,
    out: str,
    metrics: str | None,
    smooth: int | None,
    each: bool,
    over: str | None,
    as_json: bool,
) -> None:
    """Draw what several runs measured, against steps and against tokens, and tell the end of it.

    Args:
        runs: their folders.
        out: the name of the files, to which ``.png`` and ``.html`` are added; files of an earlier
            comparison are replaced, others never.
        metrics: which measures, with commas between; None = ``STANDARD``.
        smooth: training measures are averaged over so many steps; None = a fiftieth of all.
        each: draw each run, where those that differ by their seed alone would be one line.
        over: more keys, with commas between, by which the runs of one line may differ.
        as_json: print one object and nothing else.

    Raises:
        UserError: of all that is wrong with the runs, the measures and the files.
    """
    logs, files = _inputs(runs, out)
    measures = choose(logs, _listed(metrics))
    free = ALONE | _keys(logs, _listed(over))
    lines = _lines(logs, free, measures, each=each, smooth=smooth)
    differ = differences([line.runs for line in lines])
    drawing = [*how_drawn(lines, measures, _width(logs, smooth)), *remarks(lines)]
    notes = [*drawing, how_final(lines)]
    maker = f"{MAKER} {__version__}"
    html = page(lines, measures, differ, notes, maker)
    write(
        {
            files["png"]: draw(lines, measures, drawing, maker),
            files["html"]: html.encode("utf-8", "replace"),
        }
    )
    if as_json:
        told = told_as_json(lines, measures, differ, notes)
        typer.echo(json.dumps({**told, "files": {k: str(v) for k, v in files.items()}}))
    else:
        _print(lines, measures, notes, files)


def _inputs(runs: Sequence[str], out: str) -> tuple[list[RunLog], dict[str, Path]]:
    """Read the runs and look at the files; both before either is refused."""
    faults: list[Fault] = []
    logs: list[RunLog] = []
    files: dict[str, Path] = {}
    try:
        logs = read_runs(runs)
    except UserError as error:
        faults += error.faults
    try:
        files = targets(out)
    except UserError as error:
        faults += error.faults
    if faults:
        raise UserError(faults)
    return logs, files


def _listed(text: str | None) -> list[str]:
    """Return what stands between commas.

    >>> _listed("reward, kl,"), _listed(None)
    (['reward', 'kl'], [])
    """
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _keys(logs: Sequence[RunLog], over: Sequence[str]) -> frozenset[str]:
    """Return keys, or sections, that recipes may differ by; refuse one that no recipe has."""
    known = {key for log in logs for key in log.recipe}
    wrong = [each for each in over if not any(f"{key}.".startswith(f"{each}.") for key in known)]
    if wrong:
        remedy = "name keys as ftkit config does, such as model.path"
        raise user_error(f"--over {','.join(wrong)}", "no recipe has it", remedy)
    return frozenset(over)


def _width(logs: Sequence[RunLog], smooth: int | None) -> int:
    """Return over how many steps training measures are averaged."""
    longest = max(len(log.steps) for log in logs)
    return max(1, longest // SMOOTH) if smooth is None else smooth


def _lines(
    logs: Sequence[RunLog],
    free: frozenset[str],
    measures: Sequence[str],
    *,
    each: bool,
    smooth: int | None,
) -> list[Line]:
    """Return the lines of the picture."""
    groups = group(logs, free, each=each)
    if len(groups) > MOST_LINES:
        raise user_error(
            f"{len(groups)} lines",
            f"more than the {MOST_LINES} that can be told apart in one picture",
            "name fewer runs; runs whose recipes differ in seed and run alone are one line",
        )
    names, width = labels(groups), _width(logs, smooth)
    told = details(groups, names, differences(groups))
    return [
        build_line(label, detail, runs, measures, width)
        for label, detail, runs in zip(names, told, groups, strict=True)
    ]


def _print(
    lines: Sequence[Line],
    measures: Sequence[str],
    notes: Sequence[str],
    files: Mapping[str, Path],
) -> None:
    """Print the final figures, in as many tables as the width asks for, and the notes."""
    console = Console()
    first = max(len(line.label) for line in lines) + 2
    columns = max(1, (console.width - first) // CELL)
    tables = math.ceil(len(measures) / columns)
    for n in range(tables):
        part = measures[n * math.ceil(len(measures) / tables) :][
            : math.ceil(len(measures) / tables)
        ]
        console.print(_table(lines, part))
    for line in lines:
        said = (line.detail, f"{line.steps:,} steps", f"{short(line.tokens)} tokens")
        told = ", ".join(filter(None, said))
        console.print(Text.assemble((line.label, "bold"), f": {told}"), soft_wrap=True)
    for note in notes:
        console.print(Text(note, "dim"), soft_wrap=True)
    console.print(Text(in_a_line(f"{files['png']}  {files['html']}")), soft_wrap=True)


def _table(lines: Sequence[Line], measures: Sequence[str]) -> Table:
    """Return a table of some measures: each line's figure, with its interval below."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for name in measures:
        table.add_column(Text(TITLES.get(name, name)))
    for line in lines:
        cells = []
        for name in measures:
            figure = line.finals.get(name)
            span = figure.interval if figure else None
            below = "\n{:.4g} to {:.4g}".format(*span) if span else ""
            cells.append(Text.assemble(f"{figure.value:.4g}", (below, "dim")) if figure else "")
        table.add_row(Text(line.label), *cells)
    return table
