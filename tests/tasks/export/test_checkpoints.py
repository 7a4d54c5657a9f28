"""``ftkit export``: whole weights and those of checkpoints."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from ftkit.core.errors import UserError
from ftkit.recipe import load_recipe
from ftkit.tasks.train import train
from ftkit.train.checkpoint import Checkpoints
from tests.tasks.export.conftest import (
    R,
    made,
    write_recipe,
)

# whole weights and checkpoints


MODELS = {
    "weights": {"dtype": "bfloat16"},
    "adapters": {"lora": {"r": R}},
    "shared critic": {},
}
ONLINE = {
    "method": {"name": "ppo", "critic": "shared"},
    "sample": {"max_tokens": 3, "answers": 1},
    "verify": {"name": "length", "soft": 1, "hard": 4},
}


@pytest.fixture(scope="session")
def trained(place, tmp_path_factory):
    """Return a function that gives a run as training leaves it, by the name of its model."""
    made = {}

    def run(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            shutil.copy(place / "train.jsonl", folder)
            rows = str(folder / "train.jsonl")
            sections = {
                "run": str(folder / "run"),
                "data": {"train": rows, "eval": rows, "max_length": 32},
                "model": {"path": str(place / "base"), **MODELS[name]},
                "eval": {"every": 1},
                "checkpoint": {"every": 1, "keep": 4, "best": "eval.loss"},
                **(ONLINE if name == "shared critic" else {}),
            }
            recipe = write_recipe(folder / "recipe", **sections)
            assert train(load_recipe(str(recipe)), resume=False, dry_run=False) == 0
            made[name] = folder / "run"
        return made[name]

    return run


def weights(folder):
    file = next(f for f in folder.iterdir() if f.name.endswith("model.safetensors"))
    return load_file(file)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_is_exported_as_the_run_would_have_ended_there(
    trained, tmp_path, capsys, name
):
    run = trained(name)
    best = json.loads((run / "summary.json").read_text())["best"]["step"]
    options = {"merge": name != "adapters"}
    last = made(run, capsys, out=str(tmp_path / "last"), checkpoint="4", **options)
    final = made(run, capsys, out=str(tmp_path / "final"), **options)
    made(run, out=str(tmp_path / "first"), checkpoint="1", **options)
    kept = made(run, capsys, out=str(tmp_path / "best"), checkpoint="best", **options)
    assert (last["source"], last["step"]) == ("checkpoint", 4)
    assert (final["source"], final["step"]) == ("model", 4)
    assert equal(weights(tmp_path / "last"), weights(run / "model"))
    assert equal(weights(tmp_path / "final"), weights(run / "model"))
    assert not equal(weights(tmp_path / "first"), weights(run / "model"))
    assert equal(weights(tmp_path / "best"), weights(run / "best"))
    stopped = shutil.copytree(run, tmp_path / "stopped")
    shutil.rmtree(stopped / "best")
    again = made(stopped, capsys, out=str(tmp_path / "again"), checkpoint="best", **options)
    assert (kept["step"], again["step"], again["source"]) == (best, best, "checkpoint")
    assert equal(weights(tmp_path / "again"), weights(run / "best"))


def test_masters_of_a_bfloat16_run_are_exported_unrounded(trained, tmp_path, capsys):
    run = trained("weights")
    report = made(run, capsys, out=str(tmp_path / "x"), checkpoint="4", dtype="float32")
    masters = Checkpoints(run / "checkpoints", 4).load(4).weights
    found = weights(tmp_path / "x")
    assert all(torch.equal(found[name], weight) for name, weight in masters.items())
    assert any(not torch.equal(w, w.bfloat16().float()) for w in found.values())
    assert report["difference"] == {
        "reading": {"largest": 0, "mean": 0},
        "total": {"largest": 0, "mean": 0},
    }


def test_what_there_is_to_export_is_said(trained, tmp_path):
    run = shutil.copytree(trained("weights"), tmp_path / "run")
    with pytest.raises(UserError, match="there are no adapters"):
        made(run, merge=False)
    with pytest.raises(UserError, match=r"--checkpoint 9: .*--checkpoint 1, 2, 3, 4"):
        made(run, checkpoint="9")
    with pytest.raises(UserError, match="--checkpoint newest"):
        made(run, checkpoint="newest")
    shutil.rmtree(run / "model")
    with pytest.raises(UserError, match=r"no model/ yet.*--checkpoint 1, 2, 3, 4"):
        made(run)
