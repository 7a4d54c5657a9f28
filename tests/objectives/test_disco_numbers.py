"""LAWS V7 and V8: DisCO, values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.objectives import DisCO
from tests.objectives.hand import OLD, RATIOS, REWARDS, value

EXACT = {"rel": 1e-9, "abs": 1e-9}


@pytest.mark.parametrize(
    ("constants", "expected"),
    [
        ({"objective": "L1"}, -0.9139290797),
        ({"tau": 10.0}, -0.8904627579),
        ({"tau": 1.0}, -0.6834950677),
        ({"tau": 0.1}, -0.1435923565),
        ({"tau": 1e-10}, -0.0337370381),
        ({"objective": "L1", "score": "likelihood_ratio"}, -0.4083333333),
        ({"tau": 1.0, "score": "likelihood_ratio"}, -0.3655141148),
    ],
)
def test_v7_disco(constants, expected):
    objective = DisCO(name="disco", trust="none", **constants)
    assert value(objective, RATIOS, OLD, REWARDS)[0] == pytest.approx(expected, **EXACT)


def test_v7_weights_of_wrong_answers():
    objective = DisCO(name="disco", trust="none", tau=1.0)
    _, loss, logp, _ = value(objective, RATIOS, OLD, REWARDS)
    (d,) = torch.autograd.grad(loss.terms, logp)
    expected = [0.1205469577, 0.6383591270, 0.2410939153]
    assert d.sum(-1)[0, 1:].tolist() == pytest.approx(expected, **EXACT)


SPREAD = [[-0.5], [-0.9], [-0.4], [-1.2]]


@pytest.mark.parametrize(
    ("constants", "expected"),
    [
        ({"objective": "L1"}, -0.1),
        ({"tau": 1.0}, -0.0220465146),
        ({"objective": "L1", "surrogate": "logistic"}, 0.6690037344),
        ({"tau": 1.0, "surrogate": "logistic"}, 0.6871757635),
    ],
)
def test_v7_two_right_answers(constants, expected):
    p = [[math.exp(x) for x in own] for own in SPREAD]
    args = ([[1.0]] * 4, p, [1.0, 1.0, 0.0, 0.0])
    objective = DisCO(name="disco", trust="none", **constants)
    assert value(objective, *args)[0] == pytest.approx(expected, **EXACT)


def test_v7_the_partial_auc_sees_the_likeliest_wrong_answer():
    scores = [0.5, 0.9, *[0.001] * 99]
    ratios, old = [[s] for s in scores], [[1.0]] * 101
    args = (ratios, old, [1.0, *[0.0] * 100])
    objective = DisCO(name="disco", trust="none", tau=0.01, score="likelihood_ratio")
    assert value(objective, *args)[0] == pytest.approx(0.3539482981, **EXACT)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-3, 0), min_size=3, max_size=6), st.floats(0.01, 50))
def test_l1_below_l2_below_the_worst(scores, tau):
    old = [[math.exp(s)] for s in scores]
    args = ([[1.0]] * len(scores), old, [1.0, *[0.0] * (len(scores) - 1)])
    one, two, flat = (
        value(DisCO(name="disco", trust="none", **c), *args)[0]
        for c in ({"objective": "L1"}, {"tau": tau}, {"tau": 1e7})
    )
    assert one <= two + 1e-9
    assert two <= max(scores[1:]) - scores[0] + 1e-9
    assert flat == pytest.approx(one, abs=1e-5)


def test_v8_kl_estimates():
    _, loss, _, _ = value(DisCO(name="disco"), RATIOS, OLD, REWARDS)
    k1, k3 = (loss.metrics[name] for name in ("kl", "kl_k3"))
    assert float(k1.total / k1.count) == pytest.approx(0.0600067456, **EXACT)
    assert float(k3.total / k3.count) == pytest.approx(0.0662567456, **EXACT)


@pytest.mark.parametrize(
    ("kl", "penalty", "slope"),
    [(5e-5, 0.0, 0.0), (1e-4, 0.0, 0.0), (3e-4, 4e-5, 0.4), (0.01, 0.09801, 19.8)],
)
def test_v8_penalty(kl, penalty, slope):
    objective = DisCO(name="disco", beta=1e3, delta=1e-4)
    x = torch.tensor(kl, dtype=torch.float64, requires_grad=True)
    found = objective._penalty(x)
    (d,) = torch.autograd.grad(found, x)
    assert found.item() == pytest.approx(penalty, rel=1e-9, abs=0)
    assert d.item() == pytest.approx(slope, rel=1e-9, abs=0)


def test_the_constraint_has_no_gradient_at_the_old_policy():
    args = ([[1.0] * len(own) for own in RATIOS], OLD, REWARDS)
    slopes = []
    for trust in ("constraint", "none"):
        _, loss, logp, _ = value(DisCO(name="disco", trust=trust), *args)
        slopes.append(torch.autograd.grad(loss.terms, logp)[0])
    assert torch.equal(*slopes)


def test_the_published_constraint_is_half_of_ours():
    """LAWS T5: β [KL - δ]_+ times KL, with the factor detached, at β 1000 is ours at β 500."""
    _, _, logp, batch = value(DisCO(name="disco"), RATIOS, OLD, REWARDS)
    mask = batch.mask
    kl = (batch["old"] - logp).where(mask, 0.0).sum() / mask.sum()
    (theirs,) = torch.autograd.grad(1e3 * (kl - 1e-4).clamp(min=0).detach() * kl, logp)
    none, ours = (DisCO(name="disco", trust=t) for t in ("none", "constraint"))
    slopes = [torch.autograd.grad(o.loss(logp, batch).terms, logp)[0] for o in (none, ours)]
    torch.testing.assert_close(slopes[1] - slopes[0], theirs, rtol=1e-9, atol=1e-12)


def test_from_the_threshold_on_answers_are_right():
    args = (RATIOS, OLD, [0.7, 0.2, 0.1, 0.0])
    assert (
        value(DisCO(name="disco", threshold=0.7), *args)[0]
        == value(DisCO(name="disco"), RATIOS, OLD, REWARDS)[0]
    )
