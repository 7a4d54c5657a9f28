"""Which format rows have, by their columns or as the recipe says, and the examples in them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ftkit.core.errors import user_error
from ftkit.data.config import SourceConfig
from ftkit.data.example import FORMATS, Example, RowError
from ftkit.data.read import Faults, Row, read_rows
from ftkit.objectives.base import Kind

ASKED = ("question", "query", "problem", "instruction", "input", "prompt")
ANSWERED = ("answer", "response", "solution", "output", "chosen", "completion")
"""Names that columns often have for what we call prompt and completion; only suggested."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The format that a source's rows are taken to have."""

    name: str
    also: tuple[str, ...] = ()
    """Other formats that the columns would fit."""


def examples(
    source: SourceConfig, kind: Kind, seed: int, seen: Callable[[Layout], None]
) -> Iterator[Example]:
    """Yield what the rows of a source say.

    Args:
        source: which rows, in which form.
        kind: ``documents`` (everything is learnt) or ``demonstrations``.
        seed: of the draw that ``limit`` makes.
        seen: told the format, once, before the first example.

    Raises:
        UserError: with up to ``MOST_FAULTS`` faults of rows, each with its place.
    """
    faults = Faults()
    layout: Layout | None = None
    for row in read_rows(source, seed, faults):
        if layout is None:
            layout = choose_layout(source, kind, row)
            seen(layout)
        fields = _renamed(row.fields, source.columns)
        try:
            if lacking := FORMATS[layout.name].needs - fields.keys():
                raise RowError(f"no {_list(lacking)}, which format {layout.name} needs")
            example = FORMATS[layout.name].read(fields, row.place, kind == "documents")
        except RowError as error:
            faults.add(row.place, error.found, error.remedy)
            continue
        if not faults:  # after the first fault only others are looked for
            yield example
    faults.check()


def choose_layout(source: SourceConfig, kind: Kind, row: Row) -> Layout:
    """Return the format of a source: as the recipe says, or by the columns of its first row.

    Raises:
        UserError: if columns are missing, no format fits, or ``kind`` can't learn from it.
    """
    _check_mapped(source, row)
    names = _renamed(row.fields, source.columns).keys()
    order = sorted(FORMATS, key=lambda name: name != "text") if kind == "documents" else [*FORMATS]
    fits = [name for name in order if FORMATS[name].needs <= names]
    # What the recipe names goes before what happens to be there.
    fits.sort(key=lambda name: bool(source.columns) and not FORMATS[name].needs & {*source.columns})
    name = source.format if source.format != "auto" else next(iter(fits), None)
    if name is None or name not in fits:
        asked = "no format fits" if name is None else f"format {name} does not fit"
        needs = "" if name is None else f", it needs {_list(FORMATS[name].needs)}"
        found = f"{asked} the columns {_list(row.fields)}{needs}"
        raise user_error(row.place, found, _mapping(row))
    if name == "text" and kind != "documents":
        raise user_error(
            source.path,
            "its rows are texts, without a prompt to be answered",
            "learn them with `ftkit pretrain`, or map `columns: {prompt: ..., completion: ...}`",
        )
    return Layout(name, tuple(other for other in fits if other != name))


def _check_mapped(source: SourceConfig, row: Row) -> None:
    for ours, theirs in source.columns.items():
        if theirs not in row.fields:
            close = difflib.get_close_matches(theirs, row.fields, n=1)
            hint = f"did you mean '{close[0]}'?" if close else "name one of these"
            found = f"no column '{theirs}' (for {ours}) among {_list(row.fields)}"
            raise user_error(f"{row.place} columns.{ours}", found, hint)


def _renamed(fields: Mapping[str, Any], columns: Mapping[Any, str]) -> dict[str, Any]:
    """Return the fields under our names; a mapped field is no more under the file's."""
    taken = set(columns.values())
    kept = {name: value for name, value in fields.items() if name not in taken}
    return kept | {ours: fields[theirs] for ours, theirs in columns.items() if theirs in fields}


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "(none)"


def _mapping(row: Row) -> str:
    """Return the remedy: a mapping of this row's columns, if their names suggest one."""
    asked = next((name for name in ASKED if name in row.fields), "...")
    answered = next((name for name in ANSWERED if name in row.fields), "...")
    return f"map them, as in `columns: {{prompt: {asked}, completion: {answered}}}`"
