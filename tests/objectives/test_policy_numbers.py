"""The surrogates of ppo and trpo: the clip's cases, and what advantages do."""

from __future__ import annotations

import math

import pytest
import torch

from ftkit.core.batch import collate
from ftkit.core.group import Answer, Group
from ftkit.objectives import PPO, TRPO

EXACT = {"rel": 1e-6, "abs": 1e-7}


def batch_of(advantages, *, reference=-1.0):
    """One prompt with one answer of as many tokens, each of probability 1/e under π_old."""
    n = len(advantages)
    known = {"advantage": advantages, "old": (-1.0,) * n, "reference": (reference,) * n}
    return collate([Group("a", (1,), (Answer((2,) * n, reward=1.0, per_token=known),))])


def found(objective, batch, ratios):
    """Value of the objective to maximize, its slope by the log-probabilities, and the metrics."""
    logp = (torch.tensor([[ratios]], dtype=torch.float64).log() - 1).requires_grad_()
    loss = objective.loss(logp, batch)
    (slope,) = torch.autograd.grad(loss.terms.sum(), logp)
    metrics = {name: float(m.total / m.count) for name, m in loss.metrics.items()}
    return -loss.terms.flatten().tolist()[0], -slope[0, 0].tolist()[0], metrics


@pytest.mark.parametrize(
    ("advantage", "ratio", "gain", "slope"),
    [
        (2.0, 1.5, 2.4, 0.0),  # far enough up
        (2.0, 0.5, 1.0, 1.0),  # down, where it shall not be: all of the gradient
        (2.0, 1.1, 2.2, 2.2),
        (-2.0, 1.5, -3.0, -3.0),  # up, where it shall not be
        (-2.0, 0.5, -1.6, 0.0),  # far enough down
        (-2.0, 0.9, -1.8, -1.8),
        (0.0, 1.5, 0.0, 0.0),
    ],
)
def test_the_clip(advantage, ratio, gain, slope):
    value, d, metrics = found(PPO(name="ppo", clip=0.2), batch_of((advantage,)), (ratio,))
    assert (value, d) == (pytest.approx(gain, **EXACT), pytest.approx(slope, **EXACT))
    assert metrics["clipped"] == float(advantage != 0 and slope == 0)
    assert metrics["kl"] == pytest.approx(-math.log(ratio), **EXACT)
    assert metrics["reward"] == 1.0


def test_a_kl_in_the_loss_pulls_to_the_reference():
    batch = batch_of((0.0,), reference=-2.0)
    for ratio in (1.0, 0.5, math.exp(-1)):
        said = {"beta": 0.5, "kl_in": "loss"}
        value, slope, metrics = found(PPO(name="ppo", **said), batch, (ratio,))
        d = -1 - math.log(ratio)
        assert value == pytest.approx(-0.5 * ratio * (math.exp(d) - 1 - d), **EXACT)
        assert slope == pytest.approx(0.5 * ratio * d, **EXACT)  # -β (ρ log π/π_ref)' + β·0
        assert metrics["kl_reference"] == pytest.approx(-2 * value, **EXACT)
    value, slope, metrics = found(PPO(name="ppo", beta=0.5), batch, (1.0,))
    assert (value, slope) == (0.0, 0.0)  # it is in the advantages
    assert metrics["kl_reference"] == pytest.approx(math.exp(-1), **EXACT)


def test_no_reference_is_kept_without_a_kl():
    assert not PPO(name="ppo").keeps_reference
    assert PPO(name="ppo", beta=0.1).keeps_reference
    assert PPO(name="ppo", beta=0.1).rewards_kl
    assert not PPO(name="ppo", beta=0.1, kl_in="loss").rewards_kl


def test_the_surrogate_of_trpo_is_not_clipped():
    right, wrong = (Answer((2,), reward=r, per_token={"old": (-1.0,)}) for r in (1.0, 0.0))
    batch = collate([Group("a", (1,), (right, wrong))])
    logp = torch.tensor([[[9.0], [0.1]]], dtype=torch.float64).log() - 1
    loss = TRPO(name="trpo").loss(logp, batch)
    assert (-loss.terms).flatten().tolist() == pytest.approx([9.0, -0.1], **EXACT)
