"""LAWS L2: numbers do not depend on how many ranks there are, nor on the stage of ZeRO."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ftkit.recipe import load_recipe
from ftkit.tasks.gen_negatives import gen_negatives
from tests.end_to_end.conftest import run
from tests.parallel.runs import (
    COUNTED,
    LEARNERS,
    LORA,
    RUNS,
    SHALLOW,
    SHARDED,
    evaluations,
    memory,
    metrics,
    sections,
    trained,
    weights,
)

CLOSE = {"rel": 2e-4, "abs": 2e-6}
"""Float32 sums in another order, after three steps."""


SHORT = {"steps": 2}
"""Enough for what one step leaves to the next."""


@pytest.fixture
def law(recipe, tmp_path, files, ranks):
    """Return a function that runs a method in this process, and on ranks by each of some stages."""
    (tmp_path / "deepspeed.json").write_text(json.dumps(SHARDED))

    def check(name, size, stages, *, offload="none", **more):
        path = written(recipe, files, tmp_path, name, "one", **more)
        # LAWS L1 in the same breath: here a step is one part, and several on the ranks
        assert run(path, "train.micro_tokens=1000000") == 0
        for zero in stages:
            parallel = {"zero": zero, "offload": offload}
            if zero:
                parallel["deepspeed"] = str(tmp_path / "deepspeed.json")
            many = f"zero-{zero}"
            other = written(recipe, files, tmp_path, name, many, parallel=parallel, **more)
            assert ranks(size).run(trained, other) == [0] * size
            same(tmp_path / "one", tmp_path / many, many)

    return check


def written(recipe, files, tmp_path, name, run_name, **more):
    path = recipe(run_name, **sections(name, files, **more))
    tree = yaml.safe_load(path.read_text())
    if name == "trpo":
        del tree["train"]["lr"]
    if name == "dft":
        tree["data"]["pool"] = str(tmp_path / "pool")
    path.write_text(yaml.safe_dump(tree))
    if name == "dft":
        loaded = load_recipe(str(path))
        gen_negatives(loaded, shard="1/1", held_out=None, source=None, as_json=True)
    return path


def same(one, many, told):
    """Metrics, evaluations, weights and what is remembered are equal up to rounding."""
    for mine, its in zip(metrics(one), metrics(many), strict=True):
        assert its.keys() == mine.keys(), told
        for key in mine:
            wanted = mine[key] if key in COUNTED else pytest.approx(mine[key], **CLOSE)
            assert its[key] == wanted, (told, mine["step"], key)
    for mine, its in zip(evaluations(one), evaluations(many), strict=True):
        numbers = {key: value for key, value in mine.items() if isinstance(value, int | float)}
        assert {key: its[key] for key in numbers} == pytest.approx(numbers, **CLOSE), told
    mine, its = weights(one), weights(many)
    assert its.keys() == mine.keys(), told
    for key, value in mine.items():
        torch.testing.assert_close(its[key], value, rtol=1e-3, atol=2e-6, msg=f"{told} {key}")
    assert memory(many).get("ids") == memory(one).get("ids"), told
    assert memory(many).get("values", []) == pytest.approx(memory(one).get("values", []), **CLOSE)
    exported(one, many, told)


def exported(one, many, told):
    """The model on disk is that of the checkpoint, whole, whoever held which part (LAWS L10)."""
    mine, its = (load_files(folder / "model") for folder in (one, many))
    assert its.keys() == mine.keys() and mine, told
    for key, value in mine.items():
        torch.testing.assert_close(its[key], value, rtol=1e-3, atol=2e-6, msg=f"{told} {key}")


def load_files(folder):
    found = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return found


@pytest.mark.parametrize("name", [name for name in RUNS if name != "trpo"])
def test_two_ranks(law, name):
    law(name, 2, [0, 1, 2, 3])


@pytest.mark.parametrize("name", LEARNERS)
def test_two_ranks_with_adapters(law, base, name):
    law(name, 2, [0, 1, 2, 3], model={"init": None, "path": base, "lora": LORA}, train=SHORT)


@pytest.mark.parametrize("name", ["sft", "dpo", "ppo"])
def test_two_ranks_with_adapters_on_4_bits(law, base, name):
    pytest.importorskip("bitsandbytes", reason="the extra `quantize` is not installed")
    model = {"init": None, "path": base, "lora": LORA, "quantize": "nf4"}
    law(name, 2, [0, 1, 2], model=model)


@pytest.mark.parametrize("name", LEARNERS)
def test_three_ranks(law, name):
    law(name, 3, [0, 3], model=SHALLOW, train=SHORT)


@pytest.mark.parametrize("name", LEARNERS)
def test_one_rank_by_the_engine(law, name):
    """With the optimizer's state kept elsewhere there is an engine, though nobody to share with."""
    law(name, 1, [1, 2, 3], offload="optimizer", model=SHALLOW, train=SHORT)


def test_weights_kept_elsewhere(law):
    law("sft", 2, [3], offload="all")


@pytest.mark.parametrize("size", [2, 3])
def test_trpo_has_whole_weights(law, size):
    law("trpo", size, [0])


def test_checkpointing(law):
    law("sft", 2, [1, 3], model={"checkpointing": True})
