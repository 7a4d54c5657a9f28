"""What is planned for answers is what a decoder holds that writes all of them to their limit."""

from __future__ import annotations

import pytest
import torch

from ftkit.model.load import switch_dropout_off
from ftkit.plan.body import Passing, held
from ftkit.plan.facts import facts_of
from ftkit.plan.live import Live
from ftkit.plan.sampling import Asked, grown, sampling
from ftkit.samplers.cache import RowsLayer
from ftkit.samplers.config import SampleConfig
from ftkit.samplers.hf import HFSampler
from ftkit.samplers.memory import ROOM
from tests.tiny import tiny_model

PER_TOKEN = 2 * 2 * 2 * 8 * 4
"""Two layers' keys and values of two heads of eight numbers."""


def model_of(device):
    with torch.device(device):
        return switch_off(tiny_model("qwen2", num_hidden_layers=2, max_position_embeddings=2048))


def switch_off(model):
    switch_dropout_off(model)
    return model


@pytest.mark.parametrize(
    ("prompts", "length", "answers", "room"), [(5, 40, 4, 90), (5, 40, 1, 90), (2, 9, 6, 300)]
)
def test_a_batch_holds_what_is_planned(prompts, length, answers, room):
    model = model_of("cpu").eval()
    sampler = HFSampler(model, _Tokenizer(), SampleConfig(max_tokens=room), stop=[-1])
    asked = [[1] * length] * prompts
    sampler.generate(asked[:1], answers=1, seed=0)  # what is tried once
    with Live([*model.parameters(), *model.buffers()]) as live:
        sampler.generate(asked, answers=answers, seed=0)
    facts = facts_of(model_of("meta"), "auto")
    passing = held(model_of("meta"), Passing(64, 64, 64, 64), fused=True, segments=True)
    assert passing.cached == 64 * PER_TOKEN
    found = sampling(
        Asked(prompts, length, answers, room), facts, PER_TOKEN, passing.forward / 64, "cpu"
    )
    assert 0.95 < (found.cache + found.work) / live.peak < 1.3
    held_at_least = prompts * (length + answers * room) * PER_TOKEN
    assert found.cache >= held_at_least


class _Tokenizer:
    def batch_decode(self, rows, **_):
        return ["" for _ in rows]


def test_a_batch_is_as_large_as_the_sampler_makes_it():
    facts = facts_of(model_of("meta"), "auto")

    def cache(*asked):
        return sampling(Asked(*asked), facts, 1.0, 0.0, "cpu").cache

    rows, tokens = HFSampler.rows, HFSampler.cache_tokens
    assert cache(10**6, 50, 1, 50) == rows * 100  # as many rows as may be
    assert cache(10**6, 30_000, 4, 200) == tokens // 30_800 * (30_000 + 4 * 200)
    assert cache(1, 10**6, 1, 1) == 10**6 + 1  # one prompt is never cut
    assert cache(3, 50, 8, 200) == 3 * (50 + 8 * 200)


@pytest.mark.parametrize("room", [1, 255, 256, 257, 400, 5000])
def test_storage_grows_as_that_of_the_sampler(room):
    start = min(room, ROOM)
    store = torch.empty(1, 1, start, 1)
    layer = RowsLayer.of(store, store.clone(), 0)
    for _ in range(room):
        layer.update(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
    assert grown(start, room)[0] == layer.stores[0].shape[2]
