"""LAWS L1: gradient, loss and metrics do not depend on how a batch is cut or ordered."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.objectives import METHODS
from ftkit.parallel.world import OneProcess
from ftkit.train.learner import Learner
from tests.laws.cases import ALL, CASES
from tests.tiny import batch_for, gradient, random_groups, tiny_policy

over_methods = pytest.mark.parametrize(
    ("objective", "answers"), [a[:2] for a in ALL], ids=[a[2] for a in ALL]
)


def outcome(objective, groups, *, micro_tokens=10**6, way="segments"):
    policy = tiny_policy(micro_tokens, way)
    found = Learner(policy, objective, OneProcess()).differentiate(batch_for(objective, groups))
    return found, gradient(policy.model)


def assert_same(one, other):
    (a, gradient_a), (b, gradient_b) = one, other
    assert a.loss == pytest.approx(b.loss, rel=1e-5, abs=1e-6)
    assert a.metrics == pytest.approx(b.metrics, rel=1e-5, abs=1e-6)
    assert (a.tokens, a.trained) == (b.tokens, b.trained)
    scale = gradient_a.norm().clamp(min=1e-3)
    assert (gradient_a - gradient_b).norm() / scale < 1e-5


def test_every_method_is_a_case():
    assert {case.constants["name"] for case in CASES} == set(METHODS)


@over_methods
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10**6), micro_tokens=st.integers(1, 40))
def test_micro_batches(objective, answers, seed, micro_tokens):
    groups = random_groups(seed, answers=answers)
    assert_same(outcome(objective, groups), outcome(objective, groups, micro_tokens=micro_tokens))


@over_methods
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(6)))
def test_order_of_prompts(objective, answers, seed, order):
    groups = random_groups(seed, answers=answers)
    assert_same(outcome(objective, groups), outcome(objective, [groups[i] for i in order]))


@over_methods
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_packing(objective, answers, seed):
    """One flat stream and padded rows through the model's own masks are one function."""
    groups = random_groups(seed, answers=answers)
    stream = outcome(objective, groups)
    assert_same(stream, outcome(objective, groups, way="rows", micro_tokens=25))
    assert_same(stream, outcome(objective, groups, way="logits"))


@pytest.mark.parametrize("micro_tokens", [1, 13, 10**6])
@over_methods
def test_chain_rule_is_autograd(objective, answers, micro_tokens):
    """What the learner adds up is the gradient of the stated mean, taken in one piece."""
    groups = random_groups(3, answers=answers)
    batch = batch_for(objective, groups)
    policy = tiny_policy()
    loss = objective.loss(policy.forward(batch), batch)
    mean = loss.terms.sum() / batch.count(objective.unit)
    mean.backward()
    found, cut_gradient = outcome(objective, groups, micro_tokens=micro_tokens)
    assert found.loss == pytest.approx(mean.item(), rel=1e-5)
    torch.testing.assert_close(cut_gradient, gradient(policy.model), rtol=1e-4, atol=1e-6)
