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
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file

from ftkit.core.errors import RunError, cannot_write, disk_is_full, user_error
from ftkit.parallel.pieces import Stored
from ftkit.parallel.world import OneProcess, World
from ftkit.train.writing import MARKER, MEMORY, Contents, Pending, remove, sync

if TYPE_CHECKING:
    from torch import Tensor

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
        self._pending: Pending | None = None

    def save(self, contents: Contents) -> Path:
        """Write a checkpoint, then remove those that are too old; on all ranks together.

        Raises:
            UserError: if a disk is full, or a rank cannot write; older checkpoints are then as
                they were.
        """
        self.begin(contents)
        self.settle()
        return self._path(contents.step)

    def begin(self, contents: Contents, *, background: bool = False) -> None:
        """Begin to write a checkpoint, which ``settle`` completes.

        Args:
            contents: this rank's part of it.
            background: write a copy in a thread, while the weights go on changing.
        """
        self.settle()
        aside = self.folder / f".tmp-step-{contents.step:06d}"
        self._pending = Pending(contents.copied() if background else contents, aside, self._world)
        self._together(self._pending.begin)
        if background:
            self._pending.go_on()

    @property
    def pending(self) -> bool:
        """Whether one has been begun and is not complete."""
        return self._pending is not None

    def settle(self, *, wait: bool = True) -> bool:
        """Complete what was begun; on all ranks together.

        Args:
            wait: until it is written; else only if it is, on all ranks.

        Returns:
            Whether nothing is pending.

        Raises:
            UserError: as ``save``.
        """
        pending = self._pending
        if pending is None:
            return True
        if not wait and not all(self._world.gather([pending.is_done])):
            return False

        def complete() -> None:
            if self._world.leads:
                final = self._path(pending.contents.step)
                pending.complete()
                remove(final)
                pending.folder.rename(final)
                sync(self.folder)
                self._rotate(pending.contents.step, pending.contents.keep_too)

        self._together(pending.result)
        self._together(complete)
        self._pending = None
        return True

    def _together(self, write: Callable[[], None]) -> None:
        """Write on all ranks, and clean up after what goes wrong on any."""
        assert self._pending is not None
        try:
            self._world.together(lambda: self._told(write))
        except Exception:
            if self._world.leads:
                shutil.rmtree(self._pending.folder, ignore_errors=True)
            self._pending = None
            raise

    def _told(self, write: Callable[[], None]) -> None:
        """Write; say what keeps this rank from it, and what to do."""
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

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"

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
        path = self._path(step)
        return self._world.together(lambda: _read(path))

    def _rotate(self, newest: int, keep_too: int | None) -> None:
        """Remove what is too old, and what an earlier, longer life of this run left behind."""
        steps = self.steps()
        stay = {s for s in steps if s <= newest}
        stay = {*sorted(stay)[-self._keep :], *(s for s in stay if s == keep_too)}
        for step in set(steps) - stay:
            remove(self._path(step))


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
