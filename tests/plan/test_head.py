"""What the head holds is what the head's functions hold."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ftkit.model import head
from ftkit.plan.facts import Facts
from ftkit.plan.head import head_bytes
from ftkit.plan.live import Live

V, D = 700, 64
NOTHING = {field.name: 0 for field in dataclasses.fields(Facts)}


def facts_of(element=4, trains=True, **more):
    values = {"vocabulary": V, "width": D, "element": element, "head_trains": trains, **more}
    return Facts(**{**NOTHING, **values})


@pytest.mark.parametrize("learnt", [400, 5000])
@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", ["local", "log_probs"])
def test_it_is_what_the_functions_hold(monkeypatch, learnt, trains, dtype, way):
    monkeypatch.setitem(head.TILE_ELEMENTS, "cpu", 2**18)
    hidden = torch.randn(learnt, D, dtype=dtype, requires_grad=True)
    weight = torch.randn(V, D, dtype=dtype, requires_grad=trains)
    target = torch.randint(V, (learnt,))
    there = [hidden, weight, target]
    for leaf in (hidden, weight):  # gradients that are there are added to in place
        leaf.grad = torch.zeros_like(leaf)
        there.append(leaf.grad)
    with Live(there) as live:
        if way == "local":
            loss = head.reduce_locally(hidden, weight, target, lambda logp, _: -logp.sum())
        else:
            loss = -head.log_probs(hidden, weight, target).sum()
        loss.backward()
        del loss
    gradients = hidden.nbytes + trains * weight.nbytes
    most, kept = head_bytes(facts_of(hidden.element_size(), trains), learnt, "cpu")
    a_few_numbers_of_each = 60 * learnt
    assert most == pytest.approx(live.peak, rel=0.02, abs=a_few_numbers_of_each)
    assert kept == gradients


def test_all_logits_where_the_head_is_more_than_a_matrix():
    most, _ = head_bytes(facts_of(logits=True), 1000, "cpu")
    assert most > 3 * 4 * 1000 * V


def test_a_scalar_head_holds_states_alone():
    most, kept = head_bytes(facts_of(vocabulary=0, trains=False), 1000, "cpu")
    assert (most, kept) == (3 * 4 * 1000 * D, 4 * 1000 * D)


def test_a_gpu_has_larger_tiles_and_no_float32_copy_of_the_weight():
    wide = facts_of(2, vocabulary=100_000, width=1024)
    on_cpu, on_gpu = (head_bytes(wide, 10_000, device)[0] for device in ("cpu", "cuda"))
    table, states = 100_000 * 1024, 2 * 10_000 * 1024
    tile = 5000 * 100_000  # 2^29 numbers are a tile of 5,368 tokens, so that there are two
    assert on_gpu == 6 * tile + 6 * table + states
    tile = 83 * 100_000
    assert on_cpu == 4 * tile + 8 * table + states + 4 * 83 * 1024
