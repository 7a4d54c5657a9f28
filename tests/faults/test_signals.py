"""Signals to a run on two ranks: none is lost, all ranks stop after the same step, it goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from functools import partial

import pytest

from tests.faults.causes import EVALUATING, LOADING, STEP, SYNC, before, pause
from tests.parallel.runs import evaluations, metrics, weights

TERM, USR1, INT = signal.SIGTERM, signal.SIGUSR1, signal.SIGINT
ONCE_SAVED = {"checkpoint": {"every": None}}


def send(launched, number, *whom):
    """Send a signal to the launcher (-1) and to ranks."""
    pids = [launched.pid if each < 0 else launched.rank(each) for each in whom]
    for pid in pids:
        os.kill(pid, number)


def stopped_at(folder, name):
    """The step after which all ranks stopped, with a checkpoint and a word on it."""
    (path,) = (folder / "checkpoints").glob("step-*")
    step = int(path.name.removeprefix("step-"))
    assert (path / "COMPLETE").is_file()
    assert len(list(path.glob("shard-*"))) == 2
    assert [row["step"] for row in metrics(folder)] == list(range(1, step + 1))
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["reason"], summary["step"]) == ("stopped", name, step)
    return step


@pytest.mark.parametrize(
    ("number", "status", "whom"),
    [
        (TERM, 143, (-1,)),
        (USR1, 138, (1,)),
        (INT, 130, (-1, 0, 1)),
        (TERM, 143, (0, -1, 1, 1, -1, 0)),
    ],
    ids=["the launcher", "one rank", "all", "all twice"],
)
def test_all_ranks_stop_after_the_same_step(recipe, launched, tmp_path, number, *, status, whom):
    process = launched(recipe(train={"steps": 10**6}, **ONCE_SAVED))
    file = tmp_path / "run" / "metrics.jsonl"
    process.until(lambda: file.is_file() and file.read_text().count("\n") > 1)
    send(process, number, *whom)
    assert process.wait(20) == status
    step = stopped_at(tmp_path / "run", number.name)
    assert process.text.count(f"{number.name}: stopped with a checkpoint after step {step}") == 1
    assert "Traceback" not in process.text


def test_a_stopped_run_goes_on_to_the_same_end(recipe, launched, tmp_path):
    assert launched(recipe("straight")).wait() == 0
    path, here = recipe("run", **ONCE_SAVED), tmp_path / "here"
    process = launched(path, cause=before(STEP, 1, partial(pause, here), 3))
    process.until(here.is_file)
    send(process, USR1, -1)
    assert process.wait() == 138
    assert stopped_at(tmp_path / "run", "SIGUSR1") == 3
    assert launched(path, "--resume").wait() == 0
    one, other = tmp_path / "straight", tmp_path / "run"
    assert metrics(one) == metrics(other)
    assert evaluations(one) == evaluations(other)
    mine, its = weights(one), weights(other)
    assert all((its[key] == value).all() for key, value in mine.items())


@pytest.mark.parametrize(
    ("number", "status", "whom"), [(USR1, 138, -1), (TERM, 143, 1), (INT, 130, -1)]
)
def test_a_signal_while_the_model_is_loaded_ends_at_once(
    recipe, launched, tmp_path, number, *, status, whom
):
    here = tmp_path / "here"
    process = launched(recipe(), cause=before(LOADING, 0, partial(pause, here, 60)))
    process.until(here.is_file)
    began = time.monotonic()
    send(process, number, whom)
    assert process.wait(15) == status
    assert time.monotonic() - began < 10
    assert "Traceback" not in process.text
    assert f"{number.name}: stopped before the first step" in process.text
    assert launched(recipe(train={"steps": 1})).wait() == 0  # nothing is in the way


@pytest.mark.parametrize(
    ("place", "count", "step"),
    [(SYNC, 2, 2), (EVALUATING, 1, 1)],
    ids=["saving", "evaluating"],
)
def test_a_signal_while_it_saves_or_evaluates(recipe, launched, tmp_path, place, *, count, step):
    """The step at hand is finished, evaluated and saved; after a checkpoint's, one more."""
    here = tmp_path / "here"
    sections = {"checkpoint": {"every": 1}, "eval": {"every": 1}, "train": {"steps": 50}}
    cause = before(place, 0, partial(pause, here), count)
    process = launched(recipe(**sections), cause=cause)
    process.until(here.is_file)
    send(process, TERM, -1)
    assert process.wait() == 143
    folder = tmp_path / "run"
    newest = max(path.name for path in (folder / "checkpoints").glob("step-*"))
    assert newest == f"step-{step:06d}"
    assert len(evaluations(folder)) == len(metrics(folder)) == step


def test_a_signal_in_the_last_step_comes_too_late(recipe, launched, tmp_path):
    here = tmp_path / "here"
    cause = before(STEP, 1, partial(pause, here), 2)
    process = launched(recipe(train={"steps": 2}), cause=cause)
    process.until(here.is_file)
    send(process, TERM, -1)
    assert process.wait() == 0
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_a_second_ctrl_c_ends_at_once(recipe, launched, tmp_path):
    here = tmp_path / "here"
    process = launched(recipe(), cause=before(STEP, 1, partial(pause, here, 60), 2))
    process.until(here.is_file)
    send(process, INT, -1)
    time.sleep(1.1)
    send(process, INT, -1)
    assert process.wait(15) == 130
    assert process.text.endswith("interrupted\n")
    assert "Traceback" not in process.text
