"""Rows of files and of data sets of the hub, one after another, each with its place."""

from __future__ import annotations

import csv
import gzip
import json
import random
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.core.errors import Fault, UserError, user_error
from ftkit.data.config import SourceConfig

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet")
HUB = "hf:"
MOST_FAULTS = 10
"""So many faults of rows are shown at once."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it was found."""

    place: str
    """``file:line`` where the format has lines, else ``file row n``; both count from 1."""
    fields: dict[str, Any]


class Faults:
    """What is wrong with rows, gathered, so that a person sees more than the first."""

    def __init__(self) -> None:
        """Start with none."""
        self.found: list[Fault] = []

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self.found)

    def add(self, place: str, found: str, remedy: str) -> None:
        """Add one; stop when there are enough to be shown.

        Raises:
            UserError: with all faults, when there are ``MOST_FAULTS``.
        """
        self.found.append(Fault(place, found, remedy))
        if len(self.found) >= MOST_FAULTS:
            self.check(f"after {MOST_FAULTS} faults the rest was not read")

    def check(self, last: str = "") -> None:
        """Raise a ``UserError`` of all faults, if there are any."""
        if self.found:
            raise UserError([*self.found, Fault("", last)] if last else self.found)


def read_rows(source: SourceConfig, seed: int, faults: Faults) -> Iterator[Row]:
    """Yield the rows of a source in its order, or ``limit`` of them drawn with the seed.

    Args:
        source: what to read.
        seed: of the draw that ``limit`` makes.
        faults: takes up what is wrong with single rows, which are left out; the caller checks it.

    Raises:
        UserError: if there is nothing to read, or too much is wrong.
    """
    if source.limit is None:
        yield from _rows(source, faults)
        return
    rng = random.Random(f"{seed} limit {source.path}")
    drawn: list[tuple[int, Row]] = []
    for n, row in enumerate(_rows(source, faults)):  # a reservoir: each row with the same chance
        if n < source.limit:
            drawn.append((n, row))
        elif (k := rng.randrange(n + 1)) < source.limit:
            drawn[k] = (n, row)
    yield from (row for _, row in sorted(drawn, key=lambda pair: pair[0]))


def source_files(source: SourceConfig) -> list[Path]:
    """Return the files of a source, sorted; none for a data set of the hub.

    Raises:
        UserError: if there is no such file, or none of a kind that can be read.
    """
    if source.path.startswith(HUB):
        return []
    path = Path(source.path).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if _suffix(file) and file.is_file())
        if not files:
            raise user_error(source.path, "the folder holds no file of rows", _kinds())
        return files
    if not path.exists():
        raise user_error(
            source.path,
            "there is no such file or folder",
            "check data.*.path (hf:NAME for the hub)",
        )
    if not _suffix(path):
        raise user_error(source.path, f"'{path.suffix}' is no kind of file that is read", _kinds())
    return [path]


def load_hub(source: SourceConfig) -> Any:
    """Return the split of a data set of the hub (or of a local folder of `datasets`).

    Raises:
        UserError: if it can't be had.
    """
    import datasets

    name, _, config = source.path.removeprefix(HUB).partition(":")
    try:
        return datasets.load_dataset(name, config or None, split=source.split)
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        text = " ".join(str(error).split())
        raise user_error(
            f"{source.path} split '{source.split}'",
            text,
            "check the name (hf:NAME or hf:NAME:CONFIG), the split and the network",
        ) from error


def _rows(source: SourceConfig, faults: Faults) -> Iterator[Row]:
    empty = True
    if source.path.startswith(HUB):
        for n, fields in enumerate(load_hub(source), start=1):
            empty = False
            yield Row(f"{source.path} row {n}", _arrow(fields))
    for file in source_files(source):
        for row in READERS[_suffix(file)](file, faults):
            empty = False
            yield row
    if empty and not faults:
        raise user_error(source.path, "there are no rows", "give a file with at least one row")


def _arrow(fields: dict[str, Any]) -> dict[str, Any]:
    """Undo what Arrow does to nested values; a column stays a column, with a value or without."""
    return {name: without_none(value) for name, value in fields.items()}


def without_none(value: Any) -> Any:
    """Leave out the keys without a value, which Arrow gives to every struct of a column.

    >>> without_none({"role": "user", "name": None, "parts": [{"text": "a", "image": None}]})
    {'role': 'user', 'parts': [{'text': 'a'}]}
    """
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_none(item) for item in value]
    return value


def _jsonl(file: Path, faults: Faults) -> Iterator[Row]:
    with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                fields = _object(line, f"{file}:{number}", faults)
                if fields is not None:
                    yield Row(f"{file}:{number}", fields)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise user_error(str(file), f"broken gzip: {error}", "make the file again") from error


def _object(line: bytes, place: str, faults: Faults) -> dict[str, Any] | None:
    """Return the object of one line; None for a blank line, and for a faulty one."""
    if not line.strip():
        return None
    try:
        fields = json.loads(line.decode("utf-8-sig").rstrip("\r\n"))
    except UnicodeDecodeError as error:
        found = f"byte {line[error.start]:#04x} at column {error.start + 1} is not UTF-8"
        faults.add(place, found, "save the file as UTF-8")
        return None
    except json.JSONDecodeError as error:
        faults.add(f"{place}:{error.colno}", f"broken JSON: {error.msg}", "mend or remove the line")
        return None
    except RecursionError:
        faults.add(place, "JSON nested too deep", "mend or remove the line")
        return None
    if not isinstance(fields, dict):
        found = f"a JSON {type(fields).__name__}, not an object"
        faults.add(place, found, 'write one object a line, as in {"text": "..."}')
        return None
    return fields


def _json(file: Path, faults: Faults) -> Iterator[Row]:
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        found = f"byte {error.start} of the file is not UTF-8"
        raise user_error(str(file), found, "save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise user_error(
            f"{file}:{error.lineno}:{error.colno}",
            f"broken JSON: {error.msg}",
            "mend it; a file with one object a line is named .jsonl",
        ) from error
    if not isinstance(rows, list):
        raise user_error(str(file), "not an array", "write [{...}, {...}], or one object a line")
    for number, fields in enumerate(rows, start=1):
        place = f"{file} row {number}"
        if isinstance(fields, dict):
            yield Row(place, fields)
        else:
            found = f"a JSON {type(fields).__name__}, not an object"
            faults.add(place, found, 'write [{"text": "..."}, ...]')


def _csv(file: Path, faults: Faults) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        try:
            reader = csv.reader(lines, strict=True)
            header = next(reader, [])
            last = reader.line_num
            for cells in reader:
                place, last = f"{file}:{last + 1}", reader.line_num
                if len(cells) == len(header):
                    yield Row(place, dict(zip(header, cells, strict=True)))
                elif cells:
                    found = f"{len(cells)} cells under a header of {len(header)}"
                    faults.add(place, found, "quote cells that hold commas or line breaks")
        except UnicodeDecodeError as error:
            raise user_error(str(file), "not UTF-8", "save the file as UTF-8") from error
        except csv.Error as error:
            place = f"{file}:{reader.line_num}"
            raise user_error(place, f"broken CSV: {error}", "mend the quotes") from error


def _parquet(file: Path, faults: Faults) -> Iterator[Row]:
    # A file is read whole or not at all, so there are no faults of single rows.
    del faults
    import pyarrow  # type: ignore[import-untyped]  # ships no types
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        number = 0
        with pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=1024):
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(f"{file} row {number}", _arrow(fields))
    except pyarrow.ArrowException as error:
        raise user_error(str(file), f"broken Parquet: {error}", "make the file again") from error


READERS = {
    ".jsonl": _jsonl,
    ".jsonl.gz": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _suffix(file: Path) -> str:
    """Return the part of a file's name that says what it holds; '' if none does."""
    name = file.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def _kinds() -> str:
    return f"give a file that ends in {', '.join(SUFFIXES)}"
