"""Checkpoints: written aside, synced, renamed, marked COMPLETE last; none is ever half there.

RUN/checkpoints/step-000100/shard-00000.safetensors   a rank's pieces of the trainable weights and
                      of the optimizer's state, float32 (``parallel.pieces``); one file a rank
rollout-00000.json    the answers that a rank is learning from, where the method samples them
memory.safetensors    what the method remembers of each prompt, where it does: ids and values
state.json            the step, measures, what they belong to, and the files with their sizes
COMPLETE              there once everything else is on the disk

Pieces belong to parameters and not to ranks: any number of ranks, at any stage of ZeRO, goes on
from them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

from ftkit.core.errors import RunError, cannot_write, disk_is_full, user_error
from ftkit.parallel.pieces import Piece, Stored, save_pieces
from ftkit.parallel.world import OneProcess, World

if TYPE_CHECKING:
    from torch import Tensor

MARKER = "COMPLETE"
MEMORY = "memory.safetensors"
SHARDS, SOURCES = "shard-*.safetensors", "rollout-*.json"


@dataclass(frozen=True, slots=True)
class Saved:
    """What a checkpoint holds."""

    step: int
    stored: Stored
    """The trainable weights and the optimizer's state."""
    state: dict[str, Any]
    memory: Mapping[str, Tensor] | None = None
    sources: Sequence[dict[str, Any]] = ()
    """What each rank's source had."""

    @property
    def weights(self) -> dict[str, Tensor]:
        """The trainable weights, whole, float32, by name."""
        return {name: self.stored.whole(name) for name in self.stored.names}


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, keep: int, world: World | None = None) -> None:
        """Take the folder that holds them, how many of the newest stay, and who writes them."""
        self.folder = folder
        self._keep = keep
        self._world = world or OneProcess()

    def save(
        self,
        step: int,
        pieces: Mapping[str, Piece],
        state: Mapping[str, Any],
        *,
        memory: Mapping[str, Tensor] | None = None,
        source: Mapping[str, Any] | None = None,
        keep_too: int | None = None,
    ) -> Path:
        """Write a checkpoint, then remove those that are too old; on all ranks together.

        Args:
            step: after which it is.
            pieces: this rank's.
            state: the same on every rank; JSON.
            memory: the same on every rank.
            source: this rank's; JSON.
            keep_too: the step of one that stays though it is old: the best.

        Raises:
            UserError: if a disk is full, or a rank cannot write; older checkpoints are then as
                they were.
        """
        final = self.folder / f"step-{step:06d}"
        aside = self.folder / f".tmp-{final.name}"
        world = self._world
        writing = _Writing(aside, world)

        def complete() -> None:
            if world.leads:
                writing.complete({"step": step, **state, "ranks": world.size})
                _remove(final)
                aside.rename(final)
                _sync(self.folder)
                self._rotate(step, keep_too)

        def together(work: Callable[[], None]) -> None:
            world.together(lambda: self._telling(work))

        try:
            together(writing.begin)
            together(lambda: writing.own(pieces, source, memory))
            together(complete)
        except Exception:
            if world.leads:
                shutil.rmtree(aside, ignore_errors=True)
            raise
        return final

    def steps(self) -> list[int]:
        """Return the steps of the complete checkpoints, oldest first."""
        return sorted(
            int(path.name.removeprefix("step-"))
            for path in self.folder.glob("step-*")
            if (path / MARKER).is_file()
        )

    def load(self, step: int | None = None) -> Saved | None:
        """Read a checkpoint; None = the newest complete one, if there is any.

        All ranks read the same one: that which the first of them finds.

        Raises:
            RunError: if a file of it cannot be read though it was complete.
        """
        if step is None:
            found = self._world.gather([self.steps()])[0]
            if not found:
                return None
            step = found[-1]
        path = self.folder / f"step-{step:06d}"
        return self._world.together(lambda: _read(path))

    def _telling(self, write: Callable[[], None]) -> None:
        """Write; say what keeps this rank from it."""
        try:
            write()
        except Exception as error:
            if disk_is_full(error):
                found, remedy = "the disk is full", "free some space"
            elif cannot_write(error):
                found, remedy = f"it cannot be written ({error})", "let every rank write there"
            else:
                raise
            where = f" on rank {self._world.rank}, {gethostname()}" if self._world.size > 1 else ""
            raise user_error(
                str(self.folder),
                f"{found}{where}; older checkpoints are untouched",
                f"{remedy}, then --resume",
            ) from error

    def _rotate(self, newest: int, keep_too: int | None) -> None:
        """Remove what is too old, and what an earlier, longer life of this run left behind."""
        steps = self.steps()
        stay = {s for s in steps if s <= newest}
        stay = {*sorted(stay)[-self._keep :], *(s for s in stay if s == keep_too)}
        for step in set(steps) - stay:
            _remove(self.folder / f"step-{step:06d}")


@dataclass(frozen=True)
class _Writing:
    """A checkpoint on its way to the disk."""

    folder: Path
    world: World

    def begin(self) -> None:
        """Make the folder, and remove what a life that was killed has half written or removed."""
        if self.world.leads:
            for path in self.folder.parent.glob("*step-*"):
                if path.name.startswith(".") or not (path / MARKER).is_file():
                    shutil.rmtree(path, ignore_errors=True)
            self.folder.mkdir(parents=True)

    def own(
        self,
        pieces: Mapping[str, Piece],
        source: Mapping[str, Any] | None,
        memory: Mapping[str, Tensor] | None,
    ) -> None:
        """Write what is this rank's to write."""
        rank = f"{self.world.rank:05d}"
        save_pieces(pieces, self.folder / f"shard-{rank}.safetensors")
        _sync(self.folder / f"shard-{rank}.safetensors")
        if source is not None:
            _write(self.folder / f"rollout-{rank}.json", json.dumps(source))
        if memory is not None and self.world.leads:
            save_file(dict(memory), self.folder / MEMORY)
            _sync(self.folder / MEMORY)

    def complete(self, state: Mapping[str, Any]) -> None:
        """Write what says of everything else that it is there."""
        sizes = {path.name: path.stat().st_size for path in sorted(self.folder.iterdir())}
        _write(self.folder / "state.json", json.dumps({**state, "files": sizes}))
        _write(self.folder / MARKER, "")
        _sync(self.folder)


def _read(path: Path) -> Saved:
    try:
        state = json.loads((path / "state.json").read_text())
        for name, size in state.pop("files").items():
            found = (path / name).stat().st_size
            if found != size:
                raise ValueError(f"{name} has {found} bytes, and had {size} when it was written")
        del state["ranks"]
        stored = Stored.at(sorted(path.glob(SHARDS)))
        memory = load_file(path / MEMORY) if (path / MEMORY).is_file() else None
        sources = [json.loads(file.read_text()) for file in sorted(path.glob(SOURCES))]
    except Exception as error:
        raise RunError(
            f"{path}: the checkpoint is damaged ({error}); remove that folder and --resume "
            "from the one before it"
        ) from error
    return Saved(state.pop("step"), stored, state, memory, sources)


def _remove(path: Path) -> None:
    """Remove a checkpoint, if it is there; half removed, it is not taken for whole."""
    (path / MARKER).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    _sync(path)


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
