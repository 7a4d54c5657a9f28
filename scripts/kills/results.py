"""What a run has left: checkpoints that must be whole, and numbers that must be the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ftkit.train.checkpoint import Checkpoints, Saved

FILES = ("metrics.jsonl", "eval.jsonl", "samples.jsonl")


def folders(run: Path, pattern: str) -> set[str]:
    """Return the names of checkpoints' folders."""
    return {path.name for path in (run / "checkpoints").glob(pattern)}


def steps_of(run: Path) -> int:
    """Return how many steps are in metrics.jsonl."""
    path = run / "metrics.jsonl"
    return path.read_text().count("\n") if path.is_file() else 0


def read_checkpoints(run: Path) -> list[int]:
    """Read every byte of all that claim to be complete; return their steps.

    Raises:
        RunError: if one of them is damaged.
    """
    checkpoints = Checkpoints(run / "checkpoints", 1)
    steps = checkpoints.steps()
    for step in steps:
        saved = checkpoints.load(step)
        assert saved is not None
        assert saved.step == step
        _contents(saved)
    return steps


def result_of(run: Path) -> dict[str, Any]:
    """Return what a run has come to; the same for runs of the same numbers, but for seconds."""
    saved = Checkpoints(run / "checkpoints", 1).load()
    assert saved is not None
    found: dict[str, Any] = {name: _rows(run / name) for name in FILES}
    found |= {"step": saved.step, "state": saved.state, "sources": saved.sources}
    found["model"] = (run / "model" / "model.safetensors").read_bytes()
    return {**found, **_contents(saved)}


def _contents(saved: Saved) -> dict[str, bytes]:
    tensors = {
        f"{name} {key}": saved.stored.whole(name, key)
        for name in saved.stored.names
        for key in ("weight", *saved.stored.keys(name))
    }
    tensors |= {f"memory {name}": values for name, values in (saved.memory or {}).items()}
    saved.stored.close()
    return {name: values.numpy().tobytes() for name, values in tensors.items()}


def _rows(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines() if path.is_file() else []
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]
