"""The optimizer's state as pieces of parameters: what a rank holds, whatever it shares with whom.

A piece is a stretch of a flattened parameter: its float32 weights and, element for element, what
the optimizer remembers of them.  It says nothing of ranks, stages or groups, so that pieces written
by some ranks are read by any number of others, in one process as under ZeRO.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

WEIGHT = "weight"
"""The key of the weights; the others are those of torch's optimizers, such as ``exp_avg``."""
BETWEEN = "|"
"""Stands between name and key in a file; no parameter's name has it."""


@dataclass(frozen=True)
class Piece:
    """A stretch of a parameter."""

    shape: tuple[int, ...]
    """Of the whole parameter."""
    start: int
    """Where the stretch begins in the parameter, flattened."""
    values: Mapping[str, Tensor]
    """float32 [n] each, by key: the weights, and what is remembered of them."""
    steps: float = 0.0
    """Updates that the optimizer has counted."""

    def copied(self) -> Piece:
        """Return a copy in the host's memory, which stays as it is."""
        values = {key: value.detach().cpu().clone() for key, value in self.values.items()}
        return replace(self, values=values)


def save_pieces(pieces: Mapping[str, Piece], file: Path) -> None:
    """Write pieces, by the names of their parameters."""
    about = {name: [list(p.shape), p.start, p.steps] for name, p in pieces.items()}
    tensors = {
        f"{name}{BETWEEN}{key}": value.detach().cpu().contiguous()
        for name, piece in pieces.items()
        for key, value in piece.values.items()
    }
    save_file(tensors, file, metadata={"pieces": json.dumps(about)})


@dataclass
class Stored:
    """Pieces in files, read as whole parameters or as any stretch of them."""

    files: tuple[Path, ...]
    _where: dict[str, list[tuple[tuple[Any, str], int, int]]] = field(default_factory=dict)
    """For each entry: the open files and its name there, and where the stretch begins and ends."""
    _about: dict[str, tuple[tuple[int, ...], float]] = field(default_factory=dict)
    _open: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def at(cls, files: Iterable[Path]) -> Stored:
        """Open files.

        Raises:
            ValueError: if stretches of a parameter are missing.
            OSError: if a file cannot be read.
        """
        stored = cls(tuple(files))
        for file in stored.files:
            stored._read(file)
        stored._check()
        return stored

    @property
    def names(self) -> list[str]:
        """The names of all parameters."""
        return list(self._about)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a parameter."""
        return self._about[name][0]

    def steps(self, name: str) -> float:
        """Return the updates that the optimizer has counted of a parameter."""
        return self._about[name][1]

    def keys(self, name: str) -> set[str]:
        """Return what is known of a parameter beside its weights."""
        before = f"{name}{BETWEEN}"
        found = {entry.removeprefix(before) for entry in self._where if entry.startswith(before)}
        return found - {WEIGHT}

    def read(self, name: str, key: str, start: int, count: int) -> Tensor:
        """Return a stretch of a parameter: float32 [count]."""
        out = torch.empty(count)
        for (file, entry), begin, end in self._where[f"{name}{BETWEEN}{key}"]:
            low, high = max(begin, start), min(end, start + count)
            if low < high:
                stretch = file.get_slice(entry)
                out[low - start : high - start] = stretch[low - begin : high - begin]
        return out

    def whole(self, name: str, key: str = WEIGHT) -> Tensor:
        """Return all of a parameter, in its shape."""
        shape = self.shape(name)
        return self.read(name, key, 0, prod(shape)).view(shape)

    def under(self, prefix: str) -> Stored:
        """Return the parameters whose names begin so, without that beginning."""

        def own(held: Mapping[str, T]) -> dict[str, T]:
            return {n.removeprefix(prefix): x for n, x in held.items() if n.startswith(prefix)}

        return Stored(self.files, own(self._where), own(self._about), self._open)

    def close(self) -> None:
        """Close the files."""
        self._open.close()

    def _read(self, file: Path) -> None:
        tensors = self._open.enter_context(safe_open(file, framework="pt"))
        about = json.loads(tensors.metadata()["pieces"])
        for entry in tensors.keys():  # noqa: SIM118 (no mapping, it has only keys())
            name = entry.rpartition(BETWEEN)[0]
            shape, start, steps = about[name]
            (count,) = tensors.get_slice(entry).get_shape()
            self._where.setdefault(entry, []).append(((tensors, entry), start, start + count))
            before = self._about.get(name, (tuple(shape), 0.0))
            self._about[name] = (tuple(shape), max(before[1], steps))

    def _check(self) -> None:
        for entry, where in self._where.items():
            name, at = entry.rpartition(BETWEEN)[0], 0
            for _, begin, end in sorted(where, key=lambda each: each[1:]):
                if begin > at:
                    break
                at = max(at, end)
            if at < prod(self.shape(name)):
                raise ValueError(f"of {name} everything behind place {at} is missing")
