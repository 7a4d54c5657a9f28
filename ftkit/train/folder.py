"""A run's folder: claimed once, never overwritten, and telling how the run ended."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from ftkit import __version__
from ftkit.core.errors import Fault, UserError, user_error

PACKAGES = ("torch", "transformers", "tokenizers", "peft", "datasets", "deepspeed", "safetensors")

FREE = (
    "run",
    "log",
    "eval.every",
    "checkpoint",
    "parallel",
    "train.micro_tokens",
    "train.threads",
    "train.until",
    "sample.engine",
    "sample.vllm",
)
"""Keys of the recipe that may change when a run is resumed: but for rounding, none of them changes
the numbers of a step; with vLLM, answers are drawn from the same distribution by other streams."""


class RunFolder:
    """The folder of one run, held by one process at a time."""

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is written yet."""
        self.path = path
        self._lock: IO[str] | None = None

    @property
    def holds_a_run(self) -> bool:
        """Whether a run has begun here."""
        return (self.path / "recipe.yaml").is_file()

    @property
    def finished(self) -> bool:
        """Whether the run here came to its end."""
        return self.summary().get("status") == "finished"

    def check_free(self) -> None:
        """Refuse a folder that holds anything.

        Raises:
            UserError: if it does; nothing is ever overwritten.
        """
        if self.holds_a_run:
            raise user_error(
                f"run {self.path}",
                "the folder holds a run already",
                "add --resume to continue it, or give another folder (run=...)",
            )
        if self.path.is_file() or (self.path.is_dir() and any(self._others())):
            raise user_error(
                f"run {self.path}", "it exists and is not empty", "give another folder"
            )

    def check_recipe(self, mine: Mapping[str, Any], its: Mapping[str, Any]) -> None:
        """Refuse to resume a run of another recipe.

        Args:
            mine: the resolved recipe of now, as ``path -> value``.
            its: that of the run.

        Raises:
            UserError: naming each key that differs and may not.
        """
        remedy = "set it back to --resume, or begin a new run in another folder (run=...)"
        faults = [
            Fault(key, f"is {mine.get(key)!r}, and was {its.get(key)!r} when the run began", remedy)
            for key in sorted({*mine, *its})
            if mine.get(key) != its.get(key)
            and not any(f"{key}.".startswith(f"{free}.") for free in FREE)
        ]
        if faults:
            raise UserError(faults)

    def claim(self) -> None:
        """Make the folder and hold it until the process ends.

        Raises:
            UserError: if it cannot be made, or another process trains in it now.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise user_error(
                f"run {self.path}", str(error.strerror), "give another folder"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise user_error(
                f"run {self.path}", "another process trains in it now", "wait for it, or stop it"
            ) from error

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file whole or not at all."""
        self.write_text(name, json.dumps(content, indent=2) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole or not at all."""
        aside = self.path / f".tmp-{name}"
        aside.write_text(text)
        aside.replace(self.path / name)

    def summary(self) -> dict[str, Any]:
        """Return what the last life of the run said at its end; empty if it said nothing."""
        path = self.path / "summary.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        return found

    def _others(self) -> list[Path]:
        return [path for path in self.path.iterdir() if path.name != ".lock"]


def versions() -> dict[str, str | None]:
    """Return the versions of what a run computes with; None of what is not there."""
    found: dict[str, str | None] = {"ftkit": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def environment(ranks: int = 1) -> dict[str, Any]:
    """Return what a run ran on: versions, hardware, the state of the code."""
    import torch

    found = versions()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "ftkit": found.pop("ftkit"),
        "python": found.pop("python"),
        "versions": found,
        "ranks": ranks,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "git": _git(),
        "command": sys.argv,
    }


def _git() -> dict[str, Any] | None:
    """Return the commit of the current folder and whether files differ; None outside git."""
    git = shutil.which("git")
    if git is None:
        return None
    try:
        run = [git, "rev-parse", "HEAD"], [git, "status", "--porcelain"]
        commit, changes = (
            subprocess.run(
                call, capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for call in run
        )
    except (subprocess.SubprocessError, OSError):
        return None
    return {"commit": commit, "changed": bool(changes)}


def peak_memory() -> dict[str, int]:
    """Return the most memory that the process has held, in bytes, on the host and on the GPU."""
    import torch

    peak = {"host": _host_peak()}
    if torch.cuda.is_available():
        peak["gpu"] = torch.cuda.max_memory_allocated()
    return peak


def _host_peak() -> int:
    """Return the most bytes of the host that were this process's own."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage counts what the process had been before it was this program
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        if found is not None:
            return int(found[1]) * 1024
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
