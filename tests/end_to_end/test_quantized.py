"""Runs whose frozen weights are in 4 bits: adapters alone learn, and all that follows knows it."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from ftkit.core.errors import UserError
from ftkit.recipe import load_recipe
from ftkit.tasks.evaluate import evaluate_command
from ftkit.tasks.gen_negatives import gen_negatives
from ftkit.tasks.target import recipe_of_run
from tests.end_to_end.conftest import Killed, lines, run
from tests.end_to_end.test_resume import GRADED, kill_after

pytest.importorskip("bitsandbytes", reason="the extra `quantize` is not installed")

LORA = {"r": 4, "alpha": 8.0}


@pytest.fixture
def base(recipe, tmp_path):
    """The ``model:`` of a base in 4 bits under adapters."""
    assert run(recipe("base", train={"steps": 2})) == 0
    return {"path": str(tmp_path / "base" / "model"), "lora": LORA, "quantize": "nf4"}


@pytest.fixture
def dpo(recipe, files):
    def make(name, model):
        held_out = str(files / "held-out-pairs.jsonl")
        data = {"train": str(files / "pairs.jsonl"), "eval": held_out}
        return recipe(name, method={"name": "dpo"}, data=data, model=model, train={"steps": 4})

    return make


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_is_measured_as_it_was_trained(recipe, base, tmp_path, capsys, dtype):
    assert run(recipe("run", model={**base, "dtype": dtype})) == 0
    names = load_file(tmp_path / "run" / "model" / "adapter_model.safetensors")
    assert names and all(".lora_" in name for name in names)
    losses = [row["loss"]["value"] for row in lines(tmp_path / "run" / "eval.jsonl")]
    assert losses[-1] < losses[0]
    assert recipe_of_run(tmp_path / "run").model.quantize is None  # its folder knows it
    capsys.readouterr()
    options = {"data": None, "limit": 10, "rows": None, "as_json": True}
    evaluate_command(str(tmp_path / "run"), (), **options)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["loss"]["value"] == losses[-1]


def test_the_first_loss_is_log_2(dpo, base, tmp_path):
    assert run(dpo("one", base)) == 0
    further = {**base, "path": str(tmp_path / "one" / "model")}
    assert run(dpo("two", further)) == 0
    for name in ("one", "two"):
        first, *_, last = lines(tmp_path / name / "metrics.jsonl")
        assert first["loss"] == pytest.approx(math.log(2), abs=1e-6), name
        assert last["loss"] < first["loss"], name
    assert run(dpo("merged", {"path": further["path"]})) == 0
    first = lines(tmp_path / "merged" / "metrics.jsonl")[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_killed_and_resumed(recipe, base, tmp_path, monkeypatch):
    assert run(recipe("straight", model=base)) == 0
    path = recipe("resumed", model=base)
    with monkeypatch.context() as patch:
        kill_after(patch, 3)
        with pytest.raises(Killed):
            run(path)
    assert run(path, resume=True) == 0
    folders = [tmp_path / name for name in ("straight", "resumed")]
    one, other = (lines(folder / "metrics.jsonl") for folder in folders)
    assert one == other
    one, other = (load_file(f / "model" / "adapter_model.safetensors") for f in folders)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", ["grpo", "trpo"])
def test_answers_are_sampled_and_learnt(recipe, base, tmp_path, name):
    sections = {**GRADED, "train": {"steps": 2, "prompts": 2}}
    path = recipe("run", method={"name": name}, model=base, **sections)
    if name == "trpo":
        path.write_text(path.read_text().replace("  lr: 0.01\n", ""))
    assert run(path) == 0
    for row in lines(tmp_path / "run" / "metrics.jsonl"):
        assert all(math.isfinite(v) for v in row.values() if isinstance(v, float))


def test_a_pool_of_the_base_in_4_bits_is_of_another_model(recipe, base, tmp_path):
    sections = {
        "method": {"name": "dft", "gamma": 0.5},
        "sample": {"max_tokens": 4, "answers": 2},
        "data": {"pool": str(tmp_path / "pool")},
        "train": {"steps": 2, "prompts": 5},
    }
    path = recipe("run", model=base, **sections)
    gen_negatives(load_recipe(str(path)), shard="1/1", held_out=None, source=None, as_json=True)
    with pytest.raises(UserError, match=r"its model is .*quantize nf4.*, and the recipe's is"):
        run(path, "model.quantize=null", f"run={tmp_path / 'other'}")
    assert run(path) == 0
