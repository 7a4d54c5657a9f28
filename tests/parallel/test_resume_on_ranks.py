"""LAWS L3 on several ranks: bit for bit on as many, and up to rounding on another number."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import product
from unittest import mock

import pytest
import torch

from ftkit.train import loop
from tests.end_to_end.conftest import Killed, run
from tests.parallel.runs import (
    LEARNERS,
    LORA,
    SHALLOW,
    SHARDED,
    evaluations,
    memory,
    metrics,
    trained,
    weights,
)
from tests.parallel.test_same_numbers import same, written

ADAM = {"optimizer": "adamw", "max_grad_norm": 1.0, "steps": 5}
USUAL = {
    (False, "dft"): (0, 1, 2, 3),
    (False, "grpo"): (1, 3),
    (False, "ppo"): (0, 2, 3),
    (True, "sft"): (1, 3),
}
"""The stages of (adapters, method) in the ordinary tests; ``make test-matrix`` has all."""
MOMENTUM = {"optimizer": "sgd", "momentum": 0.9, "max_grad_norm": None, "steps": 5}


def killed_after(world, path, step, *overrides, resume=False):
    """Train on this rank until a step is taken, and then no further."""
    whole = loop.Loop._step

    def die(self):
        if self.state.step == step:
            raise Killed
        whole(self)

    with mock.patch.object(loop.Loop, "_step", die), suppress(Killed):
        trained(world, path, *overrides, resume=resume)


@pytest.fixture
def path_of(recipe, files, tmp_path):
    """Return a function that writes a recipe."""
    (tmp_path / "deepspeed.json").write_text(json.dumps(SHARDED))

    def make(name, run_name, zero, *, train=None, model=SHALLOW, offload="none"):
        own = {"deepspeed": str(tmp_path / "deepspeed.json")} if zero else {}
        more = {"train": train or ADAM, "checkpoint": {"every": 2}, "model": model}
        more["parallel"] = {"zero": zero, "offload": offload, **own}
        return written(recipe, files, tmp_path, name, run_name, **more)

    return make


def cases():
    """Every method, stage, number of ranks, with adapters and without; some of them each time."""
    for name, zero, size, lora in product(LEARNERS, (0, 1, 2, 3), (2, 1), (False, True)):
        if size == 1 and zero == 0:  # that is tests/end_to_end/test_resume.py
            continue
        usual = size == 2 and zero in USUAL.get((lora, name), ())
        marks = () if usual else pytest.mark.matrix
        told = f"{name}-{zero}-{size}{'-lora' * lora}"
        yield pytest.param((name, zero, size, lora), marks=marks, id=told)


@pytest.mark.parametrize("case", cases())
def test_bit_for_bit_on_as_many(path_of, base, tmp_path, ranks, case):
    name, zero, size, lora = case
    more = {"model": {"init": None, "path": base, "lora": LORA}} if lora else {}
    more["offload"] = "optimizer" if size == 1 else "none"
    straight, broken = (path_of(name, which, zero, **more) for which in ("straight", "broken"))
    some = ranks(size)
    some.run(trained, straight)
    some.run(killed_after, broken, 3)  # the newest checkpoint is of step 2, within a rollout
    assert some.run(trained, broken, resume=True) == [0] * size
    one, other = tmp_path / "straight", tmp_path / "broken"
    assert metrics(one) == metrics(other)
    assert evaluations(one) == evaluations(other)
    assert memory(one) == memory(other)
    mine, its = weights(one), weights(other)
    assert mine.keys() == its.keys() and any(key.endswith("exp_avg_sq") for key in mine)
    assert all(torch.equal(value, its[key]) for key, value in mine.items())


@pytest.mark.parametrize("train", [MOMENTUM, ADAM], ids=["momentum", "adam"])
@pytest.mark.parametrize("name", ["dft", "grpo", "ppo"])
def test_on_another_number_of_ranks_and_at_another_stage(path_of, tmp_path, ranks, name, train):
    """2 at stage 3, then 1 without an engine, then 3 at stage 1: the run of one process.

    Adam makes steps of one size out of gradients that are rounding alone: there, numbers of the
    run are compared and weights are not.
    """
    assert run(path_of(name, "one", None, train=train)) == 0
    path = path_of(name, "many", 3, train=train)
    ranks(2).run(killed_after, path, 2)
    ranks(1).run(killed_after, path, 4, resume=True)
    assert ranks(3).run(trained, path, "parallel.zero=1", resume=True) == [0, 0, 0]
    one, many = tmp_path / "one", tmp_path / "many"
    if train is MOMENTUM:
        same(one, many, "elsewhere")
        assert any(key.endswith("momentum_buffer") for key in weights(many))
        return
    for mine, its in zip(metrics(one), metrics(many), strict=True):
        assert its == pytest.approx(mine, rel=2e-3, abs=1e-4)
    mine, its = (weights(folder) for folder in (one, many))
    assert mine.keys() == its.keys()
