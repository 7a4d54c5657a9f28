"""Checkpoints: written aside, synced, renamed, marked COMPLETE last; none is ever half there.

RUN/checkpoints/step-000100/weights.safetensors   the trainable weights, float32
optimizer.pt          the optimizer's state (loads with weights_only)
memory.safetensors    what the method remembers of each prompt, where it does: ids and values
rollout.json          the answers that are being learnt from, where the method samples them
state.json            the step, measures, and what they belong to
COMPLETE              there once everything else is on the disk
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from ftkit.core.errors import RunError, disk_is_full, user_error

if TYPE_CHECKING:
    from torch import Tensor

MARKER = "COMPLETE"
MEMORY = "memory.safetensors"
SOURCE = "rollout.json"


@dataclass(frozen=True, slots=True)
class Saved:
    """What a checkpoint holds."""

    step: int
    weights: Mapping[str, Tensor]
    optimizer: dict[str, Any]
    state: dict[str, Any]
    memory: Mapping[str, Tensor] | None = None
    source: dict[str, Any] | None = None


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, keep: int) -> None:
        """Take the folder that holds them and how many of the newest stay."""
        self.folder = folder
        self._keep = keep

    def save(self, saved: Saved, keep_too: int | None = None) -> Path:
        """Write a checkpoint, then remove those that are too old.

        Args:
            saved: what to write.
            keep_too: the step of one that stays though it is old: the best.

        Raises:
            UserError: if the disk is full; older checkpoints are then as they were.
        """
        final = self.folder / f"step-{saved.step:06d}"
        aside = self.folder / f".tmp-{final.name}"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            aside.mkdir(parents=True)
            weights = {n: w.detach().cpu().contiguous() for n, w in saved.weights.items()}
            save_file(weights, aside / "weights.safetensors")
            torch.save(saved.optimizer, aside / "optimizer.pt")
            if saved.memory is not None:
                save_file(dict(saved.memory), aside / MEMORY)
            if saved.source is not None:
                (aside / SOURCE).write_text(json.dumps(saved.source))
            (aside / "state.json").write_text(json.dumps({"step": saved.step, **saved.state}))
            for path in aside.iterdir():
                _sync(path)
            (aside / MARKER).touch()
            _sync(aside / MARKER)
            _sync(aside)
            shutil.rmtree(final, ignore_errors=True)
            aside.rename(final)
            _sync(self.folder)
        except Exception as error:
            shutil.rmtree(aside, ignore_errors=True)
            if not disk_is_full(error):
                raise
            raise user_error(
                str(self.folder),
                "the disk is full; older checkpoints are untouched",
                "free some space, then --resume",
            ) from error
        self._rotate(saved.step, keep_too)
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

        Raises:
            RunError: if a file of it cannot be read though it was complete.
        """
        steps = self.steps()
        if step is None:
            if not steps:
                return None
            step = steps[-1]
        path = self.folder / f"step-{step:06d}"
        try:
            state = json.loads((path / "state.json").read_text())
            weights = load_file(path / "weights.safetensors")
            optimizer = torch.load(path / "optimizer.pt", weights_only=True, map_location="cpu")
            memory = load_file(path / MEMORY) if (path / MEMORY).is_file() else None
            rolled = path / SOURCE
            source = json.loads(rolled.read_text()) if rolled.is_file() else None
        except Exception as error:
            raise RunError(
                f"{path}: the checkpoint is damaged ({error}); remove that folder and --resume "
                "from the one before it"
            ) from error
        return Saved(state.pop("step"), weights, optimizer, state, memory, source)

    def _rotate(self, newest: int, keep_too: int | None) -> None:
        """Remove what is too old, and what an earlier, longer life of this run left behind."""
        steps = self.steps()
        stay = {s for s in steps if s <= newest}
        stay = {*sorted(stay)[-self._keep :], *(s for s in stay if s == keep_too)}
        for step in set(steps) - stay:
            path = self.folder / f"step-{step:06d}"
            (path / MARKER).unlink()  # first, so that a half-removed one is not taken for whole
            shutil.rmtree(path)


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
