"""A rank that fails: told once, with the cause first, and the status of what it was."""

from __future__ import annotations

import shutil
import socket
from functools import partial

import pytest

from ftkit.core.errors import RunError, user_error
from tests.faults.causes import EVALUATING, STEP, before, fail

HOST = socket.gethostname()


def leave(code):
    raise SystemExit(code)


@pytest.mark.parametrize(
    ("do", "status", "last"),
    [
        (partial(fail, ValueError("no such luck")), 1, "ValueError: no such luck"),
        (partial(fail, RunError("the sky fell")), 1, "the run failed: the sky fell"),
        (partial(fail, user_error("data", "x", "y")), 2, "data: x; y"),
        (partial(leave, 0), 1, "called sys.exit(0)"),
    ],
    ids=["error", "run", "user", "exit"],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_the_failing_rank_is_told_first_and_once(recipe, launched, rank, do, *, status, last):
    process = launched(recipe(), cause=before(STEP, rank, do, 2))
    assert process.wait(20) == status
    _, first, told = process.text.partition(f"rank {rank} on {HOST} failed first:\n")
    assert first, process.text
    assert told.splitlines()[-1].endswith(last)
    assert told.count("Traceback") == (1 if "luck" in last else 0)
    assert "gloo" not in told
    assert "SIGKILL" not in told
    assert "step 1/6" in process.text  # what rank 0 said before is there


def test_what_fails_on_all_ranks_is_told_once_and_without_a_rank(recipe, launched, tmp_path):
    path = recipe(checkpoint={"every": 1})
    process = launched(path, cause=before(EVALUATING, 1, partial(fail, RunError("no"))))
    assert process.wait() == 1
    (shard,) = (tmp_path / "run" / "checkpoints" / "step-000002").glob("shard-00001*")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    damaged = launched(path, "--resume")
    assert damaged.wait() == 1
    (line,) = [each for each in damaged.text.splitlines() if "the checkpoint is damaged" in each]
    assert line.startswith("the run failed: ")
    assert f"has {len(whole) - 1} bytes, and had {len(whole)} when it was written" in line
    assert "rank " not in damaged.text
    shard.unlink()
    missing = launched(path, "--resume")
    assert missing.wait() == 1
    assert "No such file" in missing.text
    other = launched(path, "--resume", "train.lr=0.5")
    assert other.wait() == 2
    assert other.text.startswith("train.lr: is 0.5, and was 0.01 when the run began; set it back")
    assert other.text.count("\n") == 1
    shutil.rmtree(shard.parent)  # as it is told to
    assert launched(path, "--resume").wait() == 0
