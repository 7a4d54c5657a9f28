"""A checkpoint on its way to the disk: each rank's part of it, now or in a thread."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from ftkit.parallel.pieces import Piece, save_pieces

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.parallel.world import World

MARKER = "COMPLETE"
MEMORY = "memory.safetensors"


@dataclass(frozen=True)
class Contents:
    """What a rank has to say for a checkpoint."""

    step: int
    """After which it is."""
    pieces: Mapping[str, Piece]
    """This rank's, of weights and the optimizer's state."""
    state: Mapping[str, Any]
    """The same on every rank; JSON."""
    memory: Mapping[str, Tensor] | None = None
    """What the method remembers of each prompt; the same on every rank."""
    source: Mapping[str, Any] | None = None
    """What this rank's source has; JSON."""
    keep_too: int | None = None
    """The step of an older checkpoint that stays: the best."""

    def copied(self) -> Contents:
        """Return a copy in the host's memory, which stays as it is."""
        pieces = {name: piece.copied() for name, piece in self.pieces.items()}
        return replace(self, pieces=pieces)


@dataclass
class Pending:
    """A checkpoint that was begun, in a folder beside its place."""

    contents: Contents
    folder: Path
    world: World
    _thread: Thread | None = field(default=None)
    _failure: Exception | None = field(default=None)

    def begin(self) -> None:
        """Make the folder, and remove what a life that was killed has half written or removed."""
        if self.world.leads:
            for path in self.folder.parent.glob("*step-*"):
                if path.name.startswith(".") or not (path / MARKER).is_file():
                    shutil.rmtree(path, ignore_errors=True)
            self.folder.mkdir(parents=True)

    def go_on(self) -> None:
        """Write this rank's part in a thread."""
        self._thread = Thread(target=self._try, name="checkpoint")
        self._thread.start()

    @property
    def is_done(self) -> bool:
        """Whether this rank's part is written, well or not."""
        return self._thread is not None and not self._thread.is_alive()

    def result(self) -> None:
        """Write this rank's part, or wait for the thread that does; raise what it met."""
        if self._thread is None:
            self._write_own()
            return
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def complete(self) -> None:
        """Write what says of everything else that it is there."""
        sizes = {path.name: path.stat().st_size for path in sorted(self.folder.iterdir())}
        about = {"step": self.contents.step, **self.contents.state}
        about |= {"ranks": self.world.size, "files": sizes}
        _write(self.folder / "state.json", json.dumps(about))
        _write(self.folder / MARKER, "")
        sync(self.folder)

    def _try(self) -> None:
        try:
            self._write_own()
        except Exception as error:
            self._failure = error

    def _write_own(self) -> None:
        own, rank = self.contents, f"{self.world.rank:05d}"
        shard = self.folder / f"shard-{rank}.safetensors"
        save_pieces(own.pieces, shard)
        sync(shard)
        if own.source is not None:
            _write(self.folder / f"rollout-{rank}.json", json.dumps(own.source))
        if own.memory is not None and self.world.leads:
            save_file(dict(own.memory), self.folder / MEMORY)
            sync(self.folder / MEMORY)


def remove(path: Path) -> None:
    """Remove a checkpoint, if it is there; half removed, it is not taken for whole."""
    (path / MARKER).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    sync(path)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
