"""The update: equal to torch's own, and alive in bfloat16 (PITFALLS 21)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ftkit.parallel.pieces import Stored, save_pieces
from ftkit.train.config import TrainConfig
from ftkit.train.optimizer import Optimizer


def config(**values):
    return TrainConfig(**{"lr": 0.1, "max_grad_norm": None, **values})


def test_sgd_by_hand_with_clipping_and_decay():
    """SGD shows a wrong scale that Adam hides."""
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 4.0]]))
        layer.bias.zero_()
    optimizer = Optimizer(layer, config(optimizer="sgd", max_grad_norm=1.0, weight_decay=0.5))
    layer(torch.tensor([[6.0, 8.0]])).sum().backward()  # gradient (6, 8), 1
    assert optimizer.step(0.1)["grad_norm"] == pytest.approx(101**0.5)
    expected = torch.tensor([[3.0, 4.0]]) - 0.1 * (
        torch.tensor([[6.0, 8.0]]) / 101**0.5 + 0.5 * torch.tensor([[3.0, 4.0]])
    )
    torch.testing.assert_close(layer.weight.detach(), expected)
    torch.testing.assert_close(layer.bias.detach(), torch.tensor([-0.1 / 101**0.5]))


def test_adamw_is_torchs():
    torch.manual_seed(0)
    one, other = nn.Linear(4, 3), nn.Linear(4, 3)
    other.load_state_dict(one.state_dict())
    mine = Optimizer(one, config(weight_decay=0.1, betas=(0.8, 0.9), eps=1e-6))
    groups = [
        {"params": [other.weight], "weight_decay": 0.1},
        {"params": [other.bias], "weight_decay": 0.0},
    ]
    torchs = torch.optim.AdamW(groups, lr=0.1, betas=(0.8, 0.9), eps=1e-6, foreach=False)
    for t in range(5):
        x = torch.randn(7, 4)
        mine.zero_grad()
        torchs.zero_grad()
        one(x).pow(2).mean().backward()
        other(x).pow(2).mean().backward()
        mine.step(0.1 / (t + 1))
        for group in torchs.param_groups:
            group["lr"] = 0.1 / (t + 1)
        torchs.step()
    torch.testing.assert_close(one.weight, other.weight)
    torch.testing.assert_close(one.bias, other.bias)


def test_bfloat16_weights_move_at_a_small_rate():
    """Steps of 1e-5 on weights of 1 are below bfloat16's resolution; masters add them up."""
    layer = nn.Linear(8, 8, bias=False).to(torch.bfloat16)
    nn.init.ones_(layer.weight)
    optimizer = Optimizer(layer, config())
    for _ in range(1000):
        optimizer.zero_grad()
        layer(torch.ones(1, 8, dtype=torch.bfloat16)).sum().backward()
        optimizer.step(1e-5)
    (master,) = optimizer.weights.values()
    assert master.dtype == torch.float32
    torch.testing.assert_close(master, torch.full_like(master, 0.99), atol=1e-4, rtol=0)
    assert (layer.weight < 1).all()


def test_bfloat16_gradients_are_summed_in_float32():
    layer = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    optimizer = Optimizer(layer, config())
    for _ in range(512):
        layer(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
    assert optimizer.step(0.1)["grad_norm"] == 512  # bfloat16 alone would stick at 256


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_state_comes_back(tmp_path, optimizer):
    torch.manual_seed(0)
    layer = nn.Linear(3, 3)
    mine = Optimizer(
        layer, config(optimizer=optimizer, **({} if optimizer == "adamw" else {"momentum": 0.9}))
    )

    def step():
        mine.zero_grad()
        layer(torch.ones(1, 3)).sum().backward()
        mine.step(0.1)

    step()
    save_pieces(mine.pieces(), tmp_path / "shard-0.safetensors")
    step()
    after = layer.weight.detach().clone()
    mine.load(Stored.at([tmp_path / "shard-0.safetensors"]))
    step()
    assert torch.equal(layer.weight, after)


def test_a_gradient_that_is_no_number_changes_nothing():
    layer = nn.Linear(2, 1)
    before = layer.weight.detach().clone()
    mine = Optimizer(layer, config())
    layer(torch.tensor([[math.nan, 1.0]])).sum().backward()
    assert math.isnan(mine.step(0.1)["grad_norm"])
    assert torch.equal(layer.weight, before)
