"""LAWS L2: numbers do not depend on how many ranks there are, nor on the stage of ZeRO."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from ftkit.recipe import load_recipe
from ftkit.tasks.gen_negatives import gen_negatives
from tests.end_to_end.conftest import run
from tests.parallel.runs import (
    COUNTED,
    RUNS,
    SHARDED,
    evaluations,
    memory,
    metrics,
    sections,
    trained,
    weights,
)

LORA = {"r": 4, "alpha": 8.0}
CLOSE = {"rel": 2e-4, "abs": 2e-6}
"""Float32 sums in another order, after three steps."""


@pytest.fixture
def base(recipe, tmp_path):
    """A model's folder, for adapters."""
    assert run(recipe("base", train={"steps": 1})) == 0
    return str(tmp_path / "base" / "model")


@pytest.fixture
def law(recipe, tmp_path, files, ranks):
    """Return a function that runs a method on some ranks, and on one process, and compares."""
    (tmp_path / "deepspeed.json").write_text(json.dumps(SHARDED))

    def check(name, size, zero, *, offload="none", **more):
        path = written(recipe, files, tmp_path, name, "one", **more)
        assert run(path) == 0
        parallel = {"zero": zero, "offload": offload}
        if zero:
            parallel["deepspeed"] = str(tmp_path / "deepspeed.json")
        other = written(recipe, files, tmp_path, name, "many", parallel=parallel, **more)
        assert ranks(size).run(trained, other) == [0] * size
        same(tmp_path / "one", tmp_path / "many")

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


def same(one, many):
    """Metrics, evaluations, weights and what is remembered are equal up to rounding."""
    for mine, its in zip(metrics(one), metrics(many), strict=True):
        assert its.keys() == mine.keys()
        for key in mine:
            wanted = mine[key] if key in COUNTED else pytest.approx(mine[key], **CLOSE)
            assert its[key] == wanted, (mine["step"], key)
    for mine, its in zip(evaluations(one), evaluations(many), strict=True):
        numbers = {key: value for key, value in mine.items() if isinstance(value, int | float)}
        assert {key: its[key] for key in numbers} == pytest.approx(numbers, **CLOSE)
    mine, its = weights(one), weights(many)
    assert its.keys() == mine.keys()
    for key, value in mine.items():
        torch.testing.assert_close(its[key], value, rtol=1e-3, atol=2e-6, msg=key)
    assert memory(many).get("ids") == memory(one).get("ids")
    assert memory(many).get("values", []) == pytest.approx(memory(one).get("values", []), **CLOSE)


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize("name", [name for name in RUNS if name != "trpo"])
def test_two_ranks(law, name, zero):
    law(name, 2, zero)
