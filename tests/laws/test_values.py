"""LAWS L6, L7, L8, L9: finite always, the logged loss is the stated one, constants count."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from ftkit.core.batch import collate
from ftkit.core.group import Answer, Group
from ftkit.objectives import METHODS, Method
from ftkit.parallel.world import OneProcess
from ftkit.train.learner import Learner
from tests.laws.by_hand import BY_HAND
from tests.laws.cases import ALL, CASES
from tests.tiny import KINDS, PER_TOKEN, batch_for, random_groups, tiny_policy


@pytest.mark.parametrize(("objective", "answers"), [a[:2] for a in ALL], ids=[a[2] for a in ALL])
@pytest.mark.parametrize("value", [-1e4, -1e-8, 0.0])
def test_finite_at_the_edges(objective, answers, value):
    groups = random_groups(4, answers=answers)
    logps = dict.fromkeys(KINDS, value)
    known = dict.fromkeys(PER_TOKEN, (value, value))
    groups.append(Group("empty", (1,), (Answer((), logps=logps),)))
    groups.append(Group("empties", (1,), (Answer((), logps=logps),) * answers))
    same = Answer((3, 4), logps=logps, per_token=known)
    groups.append(Group("same", (2,), (same,) * answers))
    far = [
        replace(same, reward=float(k), per_token=dict.fromkeys(PER_TOKEN, (-1e4, 0.0)))
        for k in range(answers)
    ]
    groups.append(Group("far", (2,), tuple(far)))
    batch = batch_for(objective, groups)
    logp = torch.full(batch.size, value).where(batch.mask, 0.0).requires_grad_()
    loss = objective.loss(logp, batch)
    (slope,) = torch.autograd.grad(loss.terms.sum(), logp)
    assert torch.isfinite(loss.terms).all()
    assert torch.isfinite(slope).all()


def test_finite_far_from_the_reference():
    """The scores of DFT reach where exp overflows, and the weights stay bounded (LAWS T3, V5)."""
    for far in (1400.0, -1400.0):
        logps = dict.fromkeys(KINDS, far)
        answers = (Answer((1,), logps=logps), Answer((2, 3), logps=logps))
        for case in CASES:
            if case.constants["name"] == "dft":
                batch = batch_for(case.objective, [Group("far", (1,), answers)])
                logp = torch.full(batch.size, -1.0).where(batch.mask, 0.0).requires_grad_()
                loss = case.objective.loss(logp, batch)
                (slope,) = torch.autograd.grad(loss.terms.sum(), logp)
                assert torch.isfinite(loss.terms).all()
                assert slope.abs().max() <= 1 / case.objective.gamma + 1e-6


def terms_by_hand(case, logp, batch):
    """Every method's mean, by loops over prompts, answers and tokens."""
    values = []
    for b in range(batch.size[0]):
        own = [
            [x for x, learnt in zip(row, mask, strict=True) if learnt]
            for row, mask, there in zip(
                logp[b].double().tolist(),
                batch.mask[b].tolist(),
                batch.present[b].tolist(),
                strict=True,
            )
            if there
        ]
        values.append(own)
    return BY_HAND[case.constants["name"]](case.objective, values, logp, batch)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_logged_loss_is_the_stated_value(case):
    batch = batch_for(case.objective, random_groups(7, answers=case.answers))
    policy = tiny_policy(micro_tokens=11)
    found = Learner(policy, case.objective, OneProcess()).differentiate(batch)
    expected = terms_by_hand(case, policy.without_graph(batch), batch)
    assert found.loss == pytest.approx(expected, rel=1e-6)


READ_ELSEWHERE = {
    ("dft", "negatives"),
    *(("grpo", key) for key in ("preset", "drop", "refill")),
    *(("ppo", key) for key in ("gamma", "lam", "clip_value", "value_coef")),
    *(("ppo", key) for key in ("critic", "critic_path", "critic_lr")),
    *(("trpo", key) for key in ("delta", "cg_steps", "cg_tolerance", "damping")),
    *(("trpo", key) for key in ("shrink", "tries")),
    ("disco", "threshold"),
}
"""Constants that say what goes into a batch (tests/sources), or set others: the presets of grpo and
the threshold of disco, tests/objectives/test_grpo_numbers.py and test_disco_numbers.py; the
critic's and the step's, tests/train/test_critic.py and tests/train/test_trust_region.py."""


def constants():
    return [
        (name, key)
        for name, method in METHODS.items()
        for key in method.model_fields
        if key != "name" and (name, key) not in READ_ELSEWHERE
    ]


@pytest.mark.parametrize(("name", "key"), constants())
def test_every_constant_changes_something(name, key):
    """Two cases that differ in one constant alone have different losses."""
    mine = [case for case in CASES if case.constants["name"] == name]
    groups = random_groups(8, answers=max(case.answers for case in mine))
    logp = tiny_policy().without_graph(collate(groups))

    @cache
    def loss(case):
        objective = case.objective
        batch = batch_for(objective, groups)
        return (objective.loss(logp, batch).terms.sum() / batch.count(objective.unit)).item()

    def without(case):
        return case.objective.model_dump(exclude={key, "preset"}), case.answers

    pairs = [
        (a, b)
        for a in mine
        for b in mine
        if without(a) == without(b) and getattr(a.objective, key) != getattr(b.objective, key)
    ]
    assert pairs, f"no two cases differ in {name}.{key} alone"
    assert all(loss(a) != pytest.approx(loss(b), rel=1e-3) for a, b in pairs)


@pytest.mark.parametrize("name", METHODS)
def test_a_constant_that_is_not_read_cannot_be_set(name):
    with pytest.raises(ValidationError, match="warmth"):
        TypeAdapter(Method).validate_python({"name": name, "warmth": 1.0})
