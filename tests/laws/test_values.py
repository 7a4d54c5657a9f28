"""LAWS L6, L7, L8, L9: finite always, the logged loss is the stated one, constants count."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from ftkit.core.batch import collate
from ftkit.core.group import Answer, Group
from ftkit.objectives import METHODS, Method
from ftkit.parallel.world import OneProcess
from ftkit.train.learner import Learner
from tests.laws.cases import ALL, CASES
from tests.tiny import random_groups, tiny_policy


@pytest.mark.parametrize(("objective", "answers"), [a[:2] for a in ALL], ids=[a[2] for a in ALL])
@pytest.mark.parametrize("value", [-1e4, -1e-8, 0.0])
def test_finite_at_the_edges(objective, answers, value):
    groups = random_groups(4, answers=answers)
    groups.append(Group("empty", (1,), (Answer(()),)))
    groups.append(Group("same", (2,), (Answer((3, 4)),) * answers))
    batch = collate(groups)
    logp = torch.full(batch.size, value).where(batch.mask, 0.0).requires_grad_()
    loss = objective.loss(logp, batch)
    (slope,) = torch.autograd.grad(loss.terms.sum(), logp)
    assert torch.isfinite(loss.terms).all()
    assert torch.isfinite(slope).all()


def terms_by_hand(constants, logp, batch):
    """Every method's mean, by loops over prompts, answers and tokens."""
    values = {}
    for b in range(batch.size[0]):
        for k in range(batch.size[1]):
            if batch.present[b, k]:
                values[b, k] = logp[b, k][batch.mask[b, k]].double().tolist()
    tokens = [x for answer in values.values() for x in answer]
    if constants.get("loss") == "dynamic":
        total = sum(-torch.tensor(x, dtype=torch.float64).exp().item() for x in tokens)
    else:
        total = -sum(tokens)
    return total / (len(values) if constants.get("average") == "answer" else len(tokens))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_logged_loss_is_the_stated_value(case):
    batch = collate(random_groups(7, answers=case.answers))
    policy = tiny_policy(micro_tokens=11)
    found = Learner(policy, case.objective, OneProcess()).differentiate(batch)
    expected = terms_by_hand(case.constants, policy.log_probs(batch), batch)
    assert found.loss == pytest.approx(expected, rel=1e-6)


def constants():
    return [
        (name, key)
        for name, method in METHODS.items()
        for key in method.model_fields
        if key != "name"
    ]


@pytest.mark.parametrize(("name", "key"), constants())
def test_every_constant_changes_something(name, key):
    """Two cases that differ in one constant alone have different losses."""
    key = METHODS[name].model_fields[key].alias or key
    mine = [case for case in CASES if case.constants["name"] == name]
    batch = collate(random_groups(8, answers=max(case.answers for case in mine)))
    logp = tiny_policy().log_probs(batch)

    def loss(case):
        objective = case.objective
        return (objective.loss(logp, batch).terms.sum() / batch.count(objective.unit)).item()

    def without(case):
        return {k: v for k, v in case.constants.items() if k != key}

    pairs = [
        (a, b)
        for a in mine
        for b in mine
        if without(a) == without(b) and a.constants.get(key) != b.constants.get(key)
    ]
    assert pairs, f"no two cases differ in {name}.{key} alone"
    assert all(loss(a) != pytest.approx(loss(b), rel=1e-3) for a, b in pairs)


@pytest.mark.parametrize("name", METHODS)
def test_a_constant_that_is_not_read_cannot_be_set(name):
    with pytest.raises(ValidationError, match="warmth"):
        TypeAdapter(Method).validate_python({"name": name, "warmth": 1.0})
