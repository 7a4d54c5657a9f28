"""Samples on disk: flat arrays that are mapped into memory, never read whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ftkit.core.errors import user_error
from ftkit.core.fingerprint import fingerprint
from ftkit.core.group import Group
from ftkit.data.encode import Sample

ARRAYS = {
    "tokens": np.int32,
    "ends": np.int64,
    "spans": np.int32,
    "span_ends": np.int64,
    "trained": np.int32,
    "keys": np.uint64,
    "texts": np.uint8,
    "text_ends": np.int64,
    "truths": np.uint8,
}
"""Each array and its type; item k of a flat array lies between end k - 1 and end k."""

TYPECODES = {np.int32: "i", np.int64: "q", np.uint64: "Q", np.uint8: "B"}

TEXTS = 3
"""Texts of a sample: prompt, answer, truth."""


@dataclass
class Builder:
    """Takes samples one after another; holds some bytes a token, and a name a sample."""

    columns: dict[str, array[int]] = field(
        default_factory=lambda: {name: array(TYPECODES[kind]) for name, kind in ARRAYS.items()}
    )

    duplicates: int = 0
    """How many samples were equal to an earlier one."""
    _seen: set[str] = field(default_factory=set)

    def add(self, sample: Sample) -> None:
        """Add one sample."""
        columns = self.columns
        name = sample.id
        self.duplicates += name in self._seen
        self._seen.add(name)
        columns["tokens"].extend(sample.ids)
        columns["ends"].append(len(columns["tokens"]))
        for start, stop in sample.learn:
            columns["spans"].extend((start, stop))
        columns["span_ends"].append(len(columns["spans"]))
        columns["trained"].append(sample.trained)
        columns["keys"].append(sample.key)
        for text in (sample.prompt_text, sample.text, sample.truth or ""):
            columns["texts"].frombytes(text.encode("utf-8", "surrogatepass"))
            columns["text_ends"].append(len(columns["texts"]))
        columns["truths"].append(sample.truth is not None)

    def write(self, folder: Path, about: dict[str, Any]) -> None:
        """Write the samples as ``folder``: aside first, so that it is whole or not there.

        If another process has written it meanwhile, theirs stays: the same key, the same content.

        Args:
            folder: named by a key of everything that the content depends on.
            about: JSON to keep with it.

        Raises:
            UserError: if it can't be written, as on a full disk.
        """
        arrays = {name: np.frombuffer(data, ARRAYS[name]) for name, data in self.columns.items()}
        sizes = {name: len(data) for name, data in arrays.items()}
        content = fingerprint(*(hashlib.sha256(data.data).hexdigest() for data in arrays.values()))
        aside = None
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            for name, data in arrays.items():
                with (aside / f"{name}.npy").open("wb") as file:
                    np.save(file, data)
                    file.flush()
                    os.fsync(file.fileno())
            meta = {**about, "sizes": sizes, "fingerprint": content}
            with (aside / "meta.json").open("w", encoding="utf-8") as file:
                json.dump(meta, file)
                file.flush()
                os.fsync(file.fileno())
            _publish(aside, folder)
        except OSError as error:
            remedy = "make room or rights there, or set FTKIT_CACHE to another folder"
            raise user_error(str(folder), f"can't write: {error.strerror}", remedy) from error
        finally:
            if aside is not None:
                shutil.rmtree(aside, ignore_errors=True)


@dataclass(frozen=True)
class Store:
    """Samples read from disk."""

    columns: dict[str, np.ndarray]
    meta: dict[str, Any]
    source: str

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.columns["ends"])

    @property
    def lengths(self) -> np.ndarray:
        """int32 [samples]: tokens of each."""
        return np.diff(self.columns["ends"], prepend=0).astype(np.int32)

    def group(self, row: int) -> Group:
        """Return a sample as the record that everything else works on."""
        columns = self.columns
        spans = _item(columns["spans"], columns["span_ends"], row).tolist()
        prompt, text, truth = (
            _item(columns["texts"], columns["text_ends"], TEXTS * row + k)
            .tobytes()
            .decode("utf-8", "surrogatepass")
            for k in range(TEXTS)
        )
        sample = Sample(
            tuple(_item(columns["tokens"], columns["ends"], row).tolist()),
            tuple(zip(spans[::2], spans[1::2], strict=True)),
            place="",
            prompt_text=prompt,
            text=text,
            truth=truth if columns["truths"][row] else None,
        )
        return sample.group(self.source)


def open_store(folder: Path, source: str) -> Store | None:
    """Open what ``Builder.write`` wrote; None if it is not there or not whole."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        columns = {}
        for name, size in meta["sizes"].items():
            # An empty file can't be mapped.
            data = np.load(folder / f"{name}.npy", mmap_mode="r" if size else None)
            if len(data) != size or data.dtype != ARRAYS[name]:
                return None
            columns[name] = data
    except (OSError, ValueError, LookupError, EOFError):
        return None
    return Store(columns, meta, source) if columns.keys() == ARRAYS.keys() else None


def _item(flat: np.ndarray, ends: np.ndarray, row: int) -> np.ndarray:
    """Return the row-th item of a flat array."""
    return flat[int(ends[row - 1]) if row else 0 : int(ends[row])]


def _publish(aside: Path, folder: Path) -> None:
    """Give a finished folder its name, unless another process has been first."""
    aside.chmod(0o755)  # the cache may be shared; temporary folders are private
    try:
        aside.rename(folder)
    except OSError:
        if open_store(folder, "") is not None:
            return
        broken = Path(f"{aside}-broken")  # left by a crash of the machine
        folder.rename(broken)
        shutil.rmtree(broken, ignore_errors=True)
        aside.rename(folder)
