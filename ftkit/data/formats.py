"""Which format rows have, by their columns or as the recipe says, and the examples in them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ftkit.core.errors import user_error
from ftkit.data.config import SourceConfig
from ftkit.data.example import FORMATS, Example, Format, RowError
from ftkit.data.pairs import PREFERENCES
from ftkit.data.prompts import PROMPTS, asked
from ftkit.data.read import Faults, Row, read_rows
from ftkit.objectives.base import Kind

OFTEN = {
    "prompt": ("question", "query", "problem", "instruction", "input", "prompt"),
    "completion": ("answer", "response", "solution", "output", "chosen", "completion"),
    "chosen": (
        "preferred",
        "winner",
        "better",
        "response_chosen",
        "answer",
        "completion",
        "chosen",
    ),
    "rejected": ("dispreferred", "loser", "worse", "response_rejected", "rejected"),
    "negatives": ("responses", "samples", "generations", "rejected", "negatives"),
}
"""Names that columns often have for what we call otherwise; only suggested."""

Formats = Mapping[str, Format]


@dataclass(frozen=True, slots=True)
class Layout:
    """The format that a source's rows are taken to have."""

    name: str
    also: tuple[str, ...] = ()
    """Other formats that the columns would fit."""


def formats_of(kind: Kind) -> Formats:
    """Return the formats that a kind of source can learn from, in the order they are tried in."""
    if kind == "preferences":
        return PREFERENCES
    if kind == "rollouts":
        return {name: form for name, form in FORMATS.items() if name != "text"} | PROMPTS
    return {"text": FORMATS["text"], **FORMATS} if kind == "documents" else FORMATS


def examples(
    source: SourceConfig,
    kind: Kind,
    seed: int,
    seen: Callable[[Layout], None],
    formats: Formats | None = None,
) -> Iterator[Example]:
    """Yield what the rows of a source say.

    Args:
        source: which rows, in which form.
        kind: ``documents`` (everything is learnt), ``demonstrations`` (or ``pool``, the same rows)
            or ``preferences``.
        seed: of the draw that ``limit`` makes.
        seen: told the format, once, before the first example.
        formats: those that the rows may have; None = those of the kind.

    Raises:
        UserError: with up to ``MOST_FAULTS`` faults of rows, each with its place.
    """
    faults = Faults()
    layout: Layout | None = None
    formats = formats_of(kind) if formats is None else formats
    for row in read_rows(source, seed, faults):
        if layout is None:
            layout = choose_layout(source, kind, row, formats)
            seen(layout)
        fields = _renamed(row.fields, source.columns)
        try:
            if lacking := formats[layout.name].needs - fields.keys():
                raise RowError(f"no {_list(lacking)}, which format {layout.name} needs")
            example = formats[layout.name].read(
                asked(fields, source.ask), row.place, kind == "documents"
            )
        except RowError as error:
            faults.add(row.place, error.found, error.remedy)
            continue
        if not faults:  # after the first fault only others are looked for
            yield example
    faults.check()


def choose_layout(source: SourceConfig, kind: Kind, row: Row, formats: Formats) -> Layout:
    """Return the format of a source: as the recipe says, or by the columns of its first row.

    Raises:
        UserError: if columns are missing, no format fits, or ``kind`` can't learn from it.
    """
    _check_mapped(source, row)
    names = _renamed(row.fields, source.columns).keys()
    fits = [name for name in formats if formats[name].needs <= names]
    # What the recipe names goes before what happens to be there.
    fits.sort(key=lambda name: bool(source.columns) and not formats[name].needs & {*source.columns})
    name = source.format if source.format != "auto" else next(iter(fits), None)
    if name is not None:
        _check_kind(source, kind, name, formats)
        _check_ask(source, name)
    if name is None or name not in fits:
        asked = "no format fits" if name is None else f"format {name} does not fit"
        needs = "" if name is None else f", it needs {_list(formats[name].needs)}"
        found = f"{asked} the columns {_list(row.fields)}{needs}"
        raise user_error(row.place, found, _mapping(row, formats))
    return Layout(name, tuple(other for other in fits if other != name))


def _check_kind(source: SourceConfig, kind: Kind, name: str, formats: Formats) -> None:
    """Refuse a format from which this kind of source can't learn."""
    if name == "text" and kind != "documents":
        found = "its rows are texts, without a prompt to be answered"
        remedy = "`ftkit pretrain`, or map `columns: {prompt: ..., completion: ...}`"
    elif name in formats:
        return
    elif name in PROMPTS:
        found = "its rows are prompts without answers"
        remedy = "`ftkit grpo`, or map `columns: {prompt: ..., completion: ...}`"
    elif name in PREFERENCES:
        found = "its rows are pairs of answers"
        remedy = "`ftkit dpo`, or map `columns: {prompt: ..., completion: chosen}`"
    else:
        found = f"format {name} has one answer a row, and not two to compare"
        remedy = "`ftkit sft`, or map `columns: {prompt: ..., chosen: ..., rejected: ...}`"
    raise user_error(source.path, found, f"learn them with {remedy}")


def _check_ask(source: SourceConfig, name: str) -> None:
    if source.ask is not None and name not in PROMPTS:
        found = f"words the prompts of rows without answers, and these are of format {name}"
        raise user_error(f"{source.path} ask", found, "write format: prompts, or remove ask")
    if source.ask is not None and "{prompt}" not in source.ask:
        found = "has no {prompt} in it: all rows would be asked the same"
        raise user_error(f"{source.path} ask", found, "write {prompt} where the prompt goes")


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


def _mapping(row: Row, formats: Formats) -> str:
    """Return the remedy: a mapping of this row's columns, if their names suggest one."""
    needs = {"completion"} if "prompt_completion" in formats else next(iter(formats.values())).needs
    guessed = {
        ours: next((name for name in OFTEN[ours] if name in row.fields), "...")
        for ours in ("prompt", *sorted(needs))
    }
    listed = ", ".join(f"{ours}: {theirs}" for ours, theirs in guessed.items())
    return f"map them, as in `columns: {{{listed}}}`"
