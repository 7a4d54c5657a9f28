"""bfloat16 on ranks: float32 masters, at every stage, as on one process up to rounding."""

from __future__ import annotations

import pytest
import torch

from tests.end_to_end.conftest import run
from tests.parallel.runs import metrics, trained, weights
from tests.parallel.test_same_numbers import load_files, written

CLOSE = 2e-3
"""Nats a token: the weights' own rounding is 4e-3 of each; measured 5e-4 at most."""
BF16 = {"dtype": "bfloat16"}


@pytest.mark.parametrize("name", ["sft", "dpo", "grpo"])
def test_every_stage_is_one_process(recipe, files, tmp_path, ranks, name):
    more = {"model": BF16, "train": {"steps": 2}}
    assert run(written(recipe, files, tmp_path, name, "one", **more)) == 0
    first = metrics(tmp_path / "one")[0]
    for zero in (0, 1, 2, 3):
        many = f"zero-{zero}"
        path = written(recipe, files, tmp_path, name, many, parallel={"zero": zero}, **more)
        ranks(2).run(trained, path)
        for mine, its in zip(metrics(tmp_path / "one"), metrics(tmp_path / many), strict=True):
            assert its["loss"] == pytest.approx(mine["loss"], abs=CLOSE)
        found = metrics(tmp_path / many)[0]
        assert found["grad_norm"] == pytest.approx(first["grad_norm"], rel=2e-2)
        masters, written_ = weights(tmp_path / many), load_files(tmp_path / many / "model")
        for key, value in written_.items():
            assert value.dtype == torch.bfloat16
            master = masters.get(f"{key} weight")
            if master is not None:
                assert master.dtype == torch.float32
                assert torch.equal(master.to(torch.bfloat16), value), (many, key)


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_updates_below_a_weights_rounding_add_up(recipe, files, tmp_path, ranks, zero):
    """AdamW at lr 1e-6 moves masters, and no single step a bfloat16 weight (PITFALLS 21)."""
    adam = {"optimizer": "adamw", "lr": 1e-6, "schedule": "constant", "steps": 4}
    more = {"model": BF16, "train": adam, "checkpoint": {"every": 1, "keep": 9}}
    path = written(recipe, files, tmp_path, "sft", "many", parallel={"zero": zero}, **more)
    ranks(2).run(trained, path)
    from ftkit.train.checkpoint import Checkpoints

    checkpoints = Checkpoints(tmp_path / "many" / "checkpoints", 9)
    first, last = (checkpoints.load(step).weights for step in (1, 4))
    moved = torch.cat([(last[name] - first[name]).abs().flatten() for name in first])
    assert 1e-6 < moved.max() < 4e-6
    assert (moved > 0).float().mean() > 0.5
