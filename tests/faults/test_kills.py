"""Kill -9 of a rank while it saves, and of the launcher; ``make test-kills`` at random moments."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from scripts.kills.results import read_checkpoints, result_of
from tests.faults.causes import STEP, SYNC, before, die
from tests.faults.launched import living
from tests.parallel.test_same_numbers import written

MEANT = {
    # before rank 1's second shard, before the second COMPLETE, after its renaming, within a rollout
    "shard": ("sft", 2, 1, SYNC, 2),
    "COMPLETE": ("dft", 1, 0, SYNC, 9),
    "renamed": ("sft", 2, 0, SYNC, 10),
    "rollout": ("grpo", 3, 1, STEP, 4),
}
"""Method, stage, rank, and before which call of what it dies."""


@pytest.mark.parametrize("name", MEANT)
def test_a_killed_rank_costs_nothing(recipe, launched, files, tmp_path, name):
    method, zero, rank, place, number = MEANT[name]
    sections = {"parallel": {"zero": zero}, "train": {"steps": 5}, "checkpoint": {"every": 2}}
    straight, path = (
        written(recipe, files, tmp_path, method, which, **sections) for which in ("one", "other")
    )
    assert launched(straight).wait() == 0
    process = launched(path, cause=before(place, rank, die, number))
    assert process.wait(20) == 1
    assert f"rank {rank} was killed by SIGKILL" in process.text
    assert "Traceback" not in process.text
    assert read_checkpoints(tmp_path / "other") in ([2], [2, 4])
    assert launched(path, "--resume").wait() == 0
    assert result_of(tmp_path / "other") == result_of(tmp_path / "one")
    assert not list((tmp_path / "other" / "checkpoints").glob(".*"))


def test_a_killed_launcher_leaves_no_process(recipe, launched, tmp_path):
    """Neither a rank, one that sleeps even, nor what judges answers."""
    verify = {"name": "python", "function": f"{Path(__file__).with_name('slow.py')}:judge"}
    sections = {"method": {"name": "grpo"}, "sample": {"answers": 2, "max_tokens": 2}}
    path = recipe(verify=verify, **sections, eval={"every": None})
    process = launched(path, environment={"SLOW": str(tmp_path / "judging")})
    process.until((tmp_path / "judging").is_file)
    ranks = [process.rank(number) for number in (0, 1)]
    parents = {int(each.name): parent_of(each) for each in Path("/proc").glob("[0-9]*")}
    judges = [pid for pid, parent in parents.items() if parent in ranks]
    assert judges
    os.kill(process.pid, signal.SIGKILL)
    assert not process.left()
    deadline = time.monotonic() + 3
    while set(judges) & set(living()):
        assert time.monotonic() < deadline


def parent_of(path: Path) -> int:
    try:
        return int((path / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
