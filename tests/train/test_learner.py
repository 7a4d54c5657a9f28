"""How often a model is asked for one gradient."""

from __future__ import annotations

import pytest

from ftkit.objectives import GRPO, DisCO
from ftkit.parallel.world import OneProcess
from ftkit.train.learner import Learner
from tests.tiny import batch_for, random_groups, tiny_policy

GROUP = 30
"""Tokens that hold every prompt with all of its answers, and not two of them always."""


@pytest.mark.parametrize(
    ("objective", "micro_tokens", "passes"),
    [
        (GRPO(name="grpo"), 10**6, 1),
        (GRPO(name="grpo"), GROUP, 1),
        (DisCO(name="disco"), 10**6, 1),
        (DisCO(name="disco"), GROUP, 2),
    ],
)
def test_passes_through_the_model(objective, micro_tokens, passes):
    """Log-probabilities are found beforehand only where parts depend on each other."""
    policy = tiny_policy(micro_tokens)
    batch = batch_for(objective, random_groups(0))
    parts = len(policy.parts(batch, groups=True))
    assert (parts > 1) == (micro_tokens == GROUP)
    asked = []
    policy.model.base_model.register_forward_hook(lambda *_: asked.append(None))
    Learner(policy, objective, OneProcess()).differentiate(batch)
    assert len(asked) == passes * parts
