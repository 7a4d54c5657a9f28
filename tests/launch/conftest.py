"""Commands that are started for real, and the processes that they leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.conftest import files, recipe  # noqa: F401 (fixtures)

ROOT = Path(__file__).parents[2]
FTKIT = (sys.executable, "-m", "ftkit")
PATIENCE = 120.0
"""Seconds in which anything must have happened, on a busy machine too."""


class Started:
    """A command while it runs; ``mark`` is a word in the arguments of all its processes."""

    def __init__(self, command, folder, mark, *, name="out", **environment):
        self.mark, self.file = mark, folder / f"{name}.txt"
        self.out = folder / f"{name}-only.txt"
        usual = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        with self.file.open("wb") as err, self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                env={**os.environ, **usual, "CUDA_VISIBLE_DEVICES": "", **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def errors(self) -> str:
        return self.file.read_text()

    @property
    def said(self) -> str:
        return self.out.read_text()

    def until(self, holds, seconds=PATIENCE):
        """Wait until something holds."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, self.said + self.errors
            assert self.process.poll() is None, self.said + self.errors
            time.sleep(0.02)

    def wait(self, seconds=PATIENCE) -> int:
        """Return its exit status; within so many seconds nothing of it is left anywhere."""
        deadline = time.monotonic() + seconds
        try:
            while (status := self.process.poll()) is None:
                assert time.monotonic() < deadline, f"it goes on\n{self.said}{self.errors}"
                time.sleep(0.02)
            while left := self.processes():
                assert time.monotonic() < deadline, f"left: {left}\n{self.said}{self.errors}"
                time.sleep(0.02)
        finally:
            self.end()
        return status

    def end(self):
        """Kill what is left of it."""
        self.process.kill()
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def processes(self, **variables) -> list[int]:
        """Its processes that have these variables, the oldest first."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                words = (path / "cmdline").read_bytes().split(b"\0")
                its = (path / "environ").read_bytes().split(b"\0")
                began = int((path / "stat").read_text().rpartition(")")[2].split()[19])
            except OSError:
                continue
            wanted = all(f"{k}={v}".encode() in its for k, v in variables.items())
            if wanted and any(self.mark.encode() in word for word in words):
                found.append((began, int(path.name)))
        return [pid for _, pid in sorted(found)]


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a command; what is left of it is ended with the test."""
    begun = []

    def make(*command, mark, **more):
        begun.append(Started(command, tmp_path, mark, **more))
        return begun[-1]

    yield make
    for each in begun:
        each.end()


@pytest.fixture
def far(tmp_path, monkeypatch):
    """Machines that are this one, by a stand-in for ssh; the folder in which it looks."""
    folder = tmp_path / "far"
    folder.mkdir()
    monkeypatch.setenv("FTKIT_SSH", f"{Path(__file__).with_name('far.sh')} {folder}")
    return folder
