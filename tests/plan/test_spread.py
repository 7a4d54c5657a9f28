"""Shares of processes, in closed form: with P numbers, n processes, AdamW."""

from __future__ import annotations

import pytest

from ftkit.plan import spread as module
from ftkit.plan.spread import Place, Spread, spread_of

P, N = 1000, 4


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Buffers that a model of 1,000 numbers fills."""
    monkeypatch.setattr(module, "BUCKET", 100)
    monkeypatch.setattr(module, "LIVE", 300)


@pytest.mark.parametrize(
    ("stage", "weights", "gradients", "optimizer", "gathered"),
    [
        (None, 2 * P, 4 * P, 12 * P, 0),  # masters and two averages
        (0, 2 * P, 4 * P, 12 * P, 0),
        (1, 2 * P, 4 * P + 400, 12 * P // N, 0),
        (2, 2 * P, 4 * P // N + 400, 12 * P // N, 0),
        (3, 2 * P // N, 4 * P // N + 400, 12 * P // N, 600),
    ],
)
def test_each_stage_shares_one_thing_more(stage, weights, gradients, optimizer, gathered):
    spread = Spread(N, stage, "none", 2)
    assert spread.weights(2 * P) == Place(weights)
    assert spread.gradients(P) == Place(gradients)
    assert spread.optimizer(P, P) == Place(optimizer)
    assert spread.gathered(P, 2) == gathered


def test_float32_needs_masters_with_deepspeed_alone():
    assert Spread(1, None, "none", 2).optimizer(P, 0) == Place(8 * P)
    assert Spread(N, 1, "none", 2).optimizer(P, 0) == Place(12 * P // N)
    assert Spread(1, None, "none", 0).optimizer(P, 0) == Place(0)


def test_what_is_offloaded_lies_on_the_host():
    optimizer, every = Spread(N, 2, "optimizer", 2), Spread(N, 3, "all", 2)
    assert optimizer.weights(2 * P) == Place(2 * P)
    assert optimizer.gradients(P) == Place(400, 4 * P // N)
    assert optimizer.optimizer(P, P) == Place(0, 12 * P // N)
    assert every.weights(2 * P) == Place(0, 2 * P // N)


@pytest.mark.parametrize(
    ("method", "said", "processes", "expected"),
    [
        ("sft", [], 1, (None, "none", 2)),
        ("sft", [], 2, (1, "none", 2)),
        ("sft", ["parallel.zero=3"], 1, (None, "none", 2)),
        ("sft", ["parallel.offload=optimizer"], 1, (1, "optimizer", 2)),
        ("sft", ["parallel.zero=0"], 8, (0, "none", 2)),
        ("sft", ["train.optimizer=sgd", "train.momentum=0.9"], 1, (None, "none", 1)),
        ("sft", ["train.optimizer=sgd"], 1, (None, "none", 0)),
        ("trpo", [], 8, (None, "none", 0)),
    ],
)
def test_what_a_recipe_asks_for(recipe, method, said, processes, expected):
    found = spread_of(recipe(method, *said).recipe, processes)
    assert (found.stage, found.offload, found.moments) == expected
