"""Checkpoints that cannot be written: one clear message, status 2, and older ones as they were."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path

import pytest

from ftkit.train.checkpoint import Checkpoints
from tests.faults.causes import STEP, before
from tests.parallel.runs import metrics

NOBODY = 65534
MEGABYTES = 2


@pytest.fixture
def small(tmp_path):
    """A disk on which a run begins, and not much more."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "small", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted: not root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path):
    """Leave no room on a disk."""
    block = b"x" * 4096
    with (folder / "filling").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(block)
        except OSError:
            return


def give_up_rights():
    """Be a rank to which the folder is not its own."""
    os.seteuid(NOBODY)


@pytest.mark.parametrize("background", ["true", "false"])
def test_a_full_disk(recipe, launched, small, background):
    run = small / "run"
    path = recipe(run=str(run), checkpoint={"every": 1, "keep": 5})
    full = before(STEP, 0, partial(fill, small), 4)
    process = launched(path, f"checkpoint.background={background}", cause=full)
    assert process.wait() == 2
    said = [line for line in process.text.splitlines() if "disk is full" in line]
    assert len(said) == 1, process.text
    assert "Traceback" not in process.text
    steps = Checkpoints(run / "checkpoints", 1).steps()
    assert steps in ([1, 2], [1, 2, 3])  # in the background, the third was on its way
    assert not list((run / "checkpoints").glob(".*"))
    (small / "filling").unlink()
    assert launched(path, "--resume", "checkpoint.keep=1").wait() == 0
    assert [row["step"] for row in metrics(run)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up rights")
def test_a_rank_that_may_not_write(recipe, launched, tmp_path):
    tmp_path.chmod(0o755)
    path = recipe(checkpoint={"every": 1})
    process = launched(path, cause=before(STEP, 1, give_up_rights, 2))
    assert process.wait() == 2
    said = [line for line in process.text.splitlines() if "it cannot be written" in line]
    assert len(said) == 1, process.text
    folder = tmp_path / "run" / "checkpoints"
    assert said[0].startswith(f"{folder}: it cannot be written (")
    assert "Permission denied" in said[0]
    assert (
        f"on rank 1, {os.uname().nodename}; older checkpoints are untouched; let every" in said[0]
    )
    assert [each.name for each in folder.iterdir()] == ["step-000001"]
