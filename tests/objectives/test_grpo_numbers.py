"""LAWS V6, Proposition 6.1 and the clip's four cases: values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.core.advantages import gae, group_advantage
from ftkit.core.ratio import kl_to_reference, ratio_of
from ftkit.objectives import GRPO
from ftkit.objectives.grpo import PRESETS
from tests.objectives.hand import OLD, RATIOS, REWARDS, value

EXACT = {"rel": 1e-9, "abs": 1e-9}


@pytest.mark.parametrize(
    ("constants", "expected"),
    [
        ({}, 0.1010362971),
        ({"advantage": "sample_sigma"}, 0.0875),
        ({"preset": "dr_grpo"}, 0.0625),
        ({"length": "token", "clip_high": 0.28}, 0.0829941012),
        ({"preset": "dapo"}, 0.0829941012),
    ],
)
def test_v6_grpo(constants, expected):
    objective = GRPO(name="grpo", **constants)
    assert value(objective, RATIOS, OLD, REWARDS)[0] == pytest.approx(-expected, **EXACT)


@pytest.mark.parametrize(
    ("right", "up", "down"),
    [
        (1, 2.6457513111, -0.3779644730),
        (2, 1.7320508076, -0.5773502692),
        (4, 1.0, -1.0),
    ],
)
def test_v6_advantages(right, up, down):
    reward = torch.tensor([[1.0] * right + [0.0] * (8 - right)])
    a = group_advantage(reward, reward >= 0)[0]
    assert a.tolist() == pytest.approx([up] * right + [down] * (8 - right), **EXACT)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.floats(0.1, 3.0), min_size=1, max_size=4), st.booleans()),
        min_size=2,
        max_size=8,
    ),
    st.floats(0.05, 0.9),
)
def test_proposition_6_1(answers, epsilon):
    """GRPO's objective is the discriminative one, weighted by sqrt(p (1 - p))."""
    ratios = [own for own, _ in answers]
    rewards = [float(right) for _, right in answers]
    old = [[0.2] * len(own) for own in ratios]
    found = value(GRPO(name="grpo", clip_low=epsilon, clip_high=epsilon), ratios, old, rewards)[0]
    p = sum(rewards) / len(rewards)
    if p in (0, 1):
        assert found == 0
        return
    up = [sum(min(r, 1 + epsilon) for r in own) / len(own) for own, right in answers if right]
    down = [sum(max(r, 1 - epsilon) for r in own) / len(own) for own, right in answers if not right]
    gap = sum(up) / len(up) - sum(down) / len(down)
    assert -found == pytest.approx(math.sqrt(p * (1 - p)) * gap, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("advantage", "ratio", "slope"),
    [(1, 1.5, 0), (1, 0.5, 1), (-1, 1.5, 1), (-1, 0.5, 0), (1, 1.1, 1), (-1, 0.9, 1)],
)
def test_the_clip_stops_what_has_gone_far_enough(advantage, ratio, slope):
    rewards = [1.0, 0.0] if advantage > 0 else [0.0, 1.0]
    _, loss, logp, _ = value(GRPO(name="grpo"), [[ratio], [1.0]], [[0.5], [0.5]], rewards)
    (d,) = torch.autograd.grad(loss.terms.sum(), logp)
    assert (d[0, 0, 0].item() != 0) == bool(slope)
    known = loss.metrics["clipped"]
    assert float(known.total) / float(known.count) == (0 if slope else 0.5)


def test_cispo_never_loses_a_gradient():
    _, loss, logp, _ = value(
        GRPO(name="grpo", preset="cispo"), [[9.0], [0.1]], [[0.1], [0.5]], [1, 0]
    )
    (d,) = torch.autograd.grad(loss.terms.sum(), logp)
    assert d[0, :, 0].tolist() == pytest.approx([-5.0, 0.1], **EXACT)


def test_the_sequence_ratio_is_the_geometric_mean():
    objective = GRPO(name="grpo", preset="gspo", clip_low=0.5, clip_high=0.5)
    ratios = [[1.2, 1.25], [0.8, 0.9]]
    found = value(objective, ratios, [[0.5, 0.4], [0.2, 0.3]], [1.0, 0.0])[0]
    assert -found == pytest.approx((math.sqrt(1.5) - math.sqrt(0.72)) / 2, **EXACT)


def test_truncated_answers_count_in_the_mean_of_the_group_alone():
    args = (RATIOS, OLD, REWARDS)
    _, whole, logp, _ = value(GRPO(name="grpo"), *args)
    _, masked, other, _ = value(GRPO(name="grpo", truncated="mask"), *args, (1,))
    (d,), (e,) = (
        torch.autograd.grad(x.terms.sum(), y) for x, y in ((whole, logp), (masked, other))
    )
    assert torch.equal(d[0, [0, 2, 3]], e[0, [0, 2, 3]])
    assert not e[0, 1].any() and d[0, 2].any()


@pytest.mark.parametrize("kind", ["ratio_k3", "ratio_k1", "k1", "k2", "k3"])
@pytest.mark.parametrize("off_policy", [False, True])
def test_kl_gradients_by_enumeration(kind, off_policy):
    """Which estimates have the gradient of KL(π, π_ref) for the mean of theirs."""
    torch.manual_seed(0)
    z, old, ref = (torch.randn(5, dtype=torch.float64) for _ in range(3))
    z.requires_grad_()
    logp, reference = z.log_softmax(-1), ref.log_softmax(-1)
    before = old.log_softmax(-1) if off_policy else logp.detach()
    (exact,) = torch.autograd.grad((logp.exp() * (logp - reference)).sum(), z, retain_graph=True)
    estimate = kl_to_reference(logp, reference, ratio_of(logp, before), kind)
    (mean,) = torch.autograd.grad((before.exp() * estimate).sum(), z)
    right = torch.allclose(mean, exact, rtol=1e-9, atol=1e-12)
    assert right == (kind in {"ratio_k3", "ratio_k1"} or (kind == "k2" and not off_policy))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_its_constants_and_the_recipe_goes_before_it(preset):
    said = {"name": "grpo", "preset": preset}
    assert GRPO(**said) == GRPO(**said, **PRESETS[preset])
    assert GRPO(**said) != GRPO(name="grpo")
    assert GRPO(**said, clip_high=0.11, entropy=0.5).clip_high == 0.11


def gae_slow(reward, value, after, gamma, lam):
    """The sum of all later errors, by two loops."""
    values = [*value, after]
    delta = [r + gamma * values[t + 1] - values[t] for t, r in enumerate(reward)]
    return [
        sum((gamma * lam) ** (u - t) * delta[u] for u in range(t, len(delta)))
        for t in range(len(delta))
    ]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=6),
    st.floats(-1, 1),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_gae_is_the_slow_sum(steps, after, gamma, lam):
    reward, values = ([s[i] for s in steps] for i in range(2))
    n, pad = len(steps), 3
    r, v = (torch.zeros(1, 1, n + pad, dtype=torch.float64) for _ in range(2))
    r[0, 0, :n], v[0, 0, :n] = torch.tensor(reward), torch.tensor(values)
    mask = torch.arange(n + pad)[None, None] < n
    a, ret = gae(r, v, torch.tensor([[after]]), mask, gamma=gamma, lam=lam)
    expected = gae_slow(
        r[0, 0, :n].tolist(), v[0, 0, :n].tolist(), float(torch.tensor(after)), gamma, lam
    )
    assert a[0, 0, :n].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert not a[0, 0, n:].any()
    torch.testing.assert_close(ret, (a + v).where(mask, 0.0))
