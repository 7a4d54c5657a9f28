"""LAWS L3: n steps are k steps, an end of any kind, and n - k steps, bit for bit."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from ftkit.core.errors import UserError
from ftkit.recipe import load_recipe
from ftkit.tasks import train as task
from ftkit.tasks.gen_negatives import gen_negatives
from ftkit.train import loop
from tests.end_to_end.conftest import Killed, lines, run

GRADED = {
    "sample": {"max_tokens": 4, "answers": 4},
    "verify": {"name": "format", "pattern": r"(?s)[ -~].*"},
}
"""Rewards that a random model's answers differ in."""

SHARD = "shard-00000.safetensors"

METHODS = {
    "sft": {},
    "pretrain": {"method": {"name": "pretrain"}},
    "sgd": {"train": {"optimizer": "sgd", "momentum": 0.9}},
    "bfloat16": {},
    "background": {"checkpoint": {"background": True, "every": 1}},
    "reward": {"method": {"name": "reward"}},
    "dpo": {"method": {"name": "dpo"}},
    "dft": {"method": {"name": "dft"}, "sample": {"max_tokens": 4, "answers": 3}},
    "grpo": {
        "method": {"name": "grpo", "beta": 0.1, "drop": True, "refill": 1},
        "train": {"updates": 2, "rollout_epochs": 2, "steps": 8, "prompts": 4},
        **GRADED,
    },
    "disco": {
        "method": {"name": "disco", "threshold": 0.5},
        "train": {"updates": 3, "prompts": 4},
        **GRADED,
    },
    "dft in parts": {
        "method": {"name": "dft", "negatives": 3, "u_init": "batch"},
        "sample": {"max_tokens": 4, "answers": 3},
        "train": {"micro_tokens": 24, "steps": 14},
    },
}


def sections_of(name, files, tmp_path):
    sections = dict(METHODS[name])
    if name == "pretrain":
        texts = str(files / "texts.jsonl")
        sections["data"] = {"train": texts, "eval": texts}
    if name in {"reward", "dpo"}:
        held_out = str(files / "held-out-pairs.jsonl")
        sections["data"] = {"train": str(files / "pairs.jsonl"), "eval": held_out}
    if name.startswith("dft"):
        sections["data"] = {"pool": str(tmp_path / "pool")}
    return sections


def same(one, other):
    assert lines(one / "metrics.jsonl") == lines(other / "metrics.jsonl")
    assert lines(one / "eval.jsonl") == lines(other / "eval.jsonl")
    a = load_file(one / "model" / "model.safetensors")
    b = load_file(other / "model" / "model.safetensors")
    assert all(torch.equal(a[name], b[name]) for name in a)
    last = max((one / "checkpoints").glob("step-*")).name
    mine, its = (load_file(run / "checkpoints" / last / SHARD) for run in (one, other))
    assert mine.keys() == its.keys()
    assert all(torch.equal(value, its[name]) for name, value in mine.items())
    tables = [run / "checkpoints" / last / "memory.safetensors" for run in (one, other)]
    assert tables[0].is_file() == tables[1].is_file()
    if tables[0].is_file():
        assert tables[0].read_bytes() == tables[1].read_bytes()


def kill_after(monkeypatch, step):
    """Make the loop die in the middle of a step, metrics of the one before it written."""
    whole = loop.Loop._step

    def die(self):
        if self.state.step == step:
            raise Killed
        whole(self)

    monkeypatch.setattr(loop.Loop, "_step", die)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("step", [1, 3, 5])
def test_killed_and_resumed(  # noqa: PLR0917 (fixtures)
    recipe, tmp_path, monkeypatch, files, name, step
):
    sections = sections_of(name, files, tmp_path)
    overrides = ("model.dtype=bfloat16",) if name == "bfloat16" else ()
    straight = recipe("straight", **sections)
    if name.startswith("dft"):
        loaded = load_recipe(str(straight))
        gen_negatives(loaded, shard="1/1", held_out=None, source=None, as_json=True)
    assert run(straight, *overrides) == 0
    path = recipe("resumed", **sections)
    kill_after(monkeypatch, step)
    with pytest.raises(Killed):
        run(path, *overrides)
    monkeypatch.undo()
    monkeypatch.setenv("FTKIT_CACHE", str(files / "cache"))
    assert run(path, *overrides, resume=True) == 0
    same(tmp_path / "straight", tmp_path / "resumed")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_writes_a_checkpoint_first(recipe, tmp_path, monkeypatch, number, status):
    assert run(recipe("straight")) == 0
    path = recipe("resumed")
    whole = loop.Loop._step

    def interrupted(self):
        whole(self)
        if self.state.step == 3:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(loop.Loop, "_step", interrupted)
    assert run(path) == status
    assert (tmp_path / "resumed/checkpoints/step-000003/COMPLETE").is_file()
    assert not (tmp_path / "resumed/model").exists()
    monkeypatch.setattr(loop.Loop, "_step", whole)
    assert run(path, resume=True) == 0
    same(tmp_path / "straight", tmp_path / "resumed")


def test_resume_of_nothing_starts(recipe, tmp_path):
    assert run(recipe(), resume=True) == 0
    assert len(lines(tmp_path / "run/metrics.jsonl")) == 6


def test_resume_of_a_finished_run_changes_nothing(recipe, tmp_path, capsys):
    path = recipe()
    run(path)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    assert run(path, resume=True) == 0
    assert "finished" in capsys.readouterr().out
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}


def test_killed_between_the_target_and_the_export(recipe, tmp_path, monkeypatch, files):
    """The target that was reached before the end of the process still ends the run."""
    sections = {"train": {"steps": 9, "until": {"eval.loss": 100.0}}}
    assert run(recipe("straight", **sections)) == 0
    path = recipe("resumed", **sections)

    def die(*args):
        raise Killed

    monkeypatch.setattr(task, "save_model", die)
    with pytest.raises(Killed):
        run(path)
    monkeypatch.undo()
    monkeypatch.setenv("FTKIT_CACHE", str(files / "cache"))
    assert run(path, resume=True) == 0
    metrics = [lines(tmp_path / name / "metrics.jsonl") for name in ("straight", "resumed")]
    assert metrics[0] == metrics[1]
    assert len(metrics[0]) == 3
    assert (tmp_path / "resumed/model/model.safetensors").is_file()


def test_a_further_target_goes_on(recipe, tmp_path):
    path = recipe(train={"steps": 9, "until": {"eval.loss": 100.0}})
    run(path)
    assert run(path, "train.until={eval.loss: 0.0}", resume=True) == 0
    assert [row["step"] for row in lines(tmp_path / "run/metrics.jsonl")] == list(range(1, 10))


def test_another_recipe_is_refused_with_what_differs(recipe, monkeypatch):
    path = recipe()
    kill_after(monkeypatch, 3)
    with pytest.raises(Killed):
        run(path)
    with pytest.raises(UserError, match=r"(?s)train\.lr: is 0\.1, and was 0\.01.*--resume"):
        run(path, "train.lr=0.1", "train.micro_tokens=64", resume=True)


def test_other_rows_are_refused(recipe, monkeypatch, tmp_path, files):
    rows = tmp_path / "rows.jsonl"
    rows.write_text((files / "train.jsonl").read_text())
    path = recipe(data={"train": str(rows)})
    kill_after(monkeypatch, 3)
    with pytest.raises(Killed):
        run(path)
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=r"data\.train.*not those"):
        run(path, resume=True)
