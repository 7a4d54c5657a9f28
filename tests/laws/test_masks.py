"""LAWS L4: only answer tokens of the policy are learnt; documents do not see each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ftkit.core.batch import collate
from ftkit.core.group import Answer, Group
from ftkit.model.load import switch_dropout_off
from ftkit.model.policy import Policy
from ftkit.parallel.world import OneProcess
from ftkit.train.learner import Learner
from tests.laws.cases import ALL
from tests.tiny import KINDS, PER_TOKEN, batch_for, gradient, random_groups, tiny_model, tiny_policy


@pytest.mark.parametrize("way", ["segments", "rows", "logits"])
def test_untrained_tokens_have_no_log_probability(way):
    batch = collate(random_groups(1))
    logp = tiny_policy(way=way).forward(batch)
    assert logp.shape == batch.size
    assert (logp[~batch.mask] == 0).all()
    assert (logp[batch.mask] < 0).all()


@pytest.mark.parametrize(("objective", "answers"), [a[:2] for a in ALL], ids=[a[2] for a in ALL])
def test_untrained_tokens_have_no_gradient(objective, answers):
    batch = batch_for(objective, random_groups(2, answers=answers))
    logp = tiny_policy().forward(batch).detach().requires_grad_()
    objective.loss(logp, batch).terms.sum().backward()
    assert (logp.grad[~batch.mask] == 0).all()
    assert (logp.grad[batch.mask] != 0).any()


@pytest.mark.parametrize(("objective", "answers"), [a[:2] for a in ALL], ids=[a[2] for a in ALL])
def test_tokens_after_the_last_trained_one_change_nothing(objective, answers):
    def found(tail):
        answer = Answer((4, 5, 6, *tail), learn=((0, 2),))
        policy = tiny_policy()
        logps = dict.fromkeys(KINDS, -2.0)
        known = dict.fromkeys(PER_TOKEN, (-2.0,) * len(answer.tokens))
        answers_to = tuple(
            replace(answer, reward=float(k), logps=logps, per_token=known) for k in range(answers)
        )
        batch = batch_for(objective, [Group("a", (1, 2), answers_to)])
        loss = Learner(policy, objective, OneProcess()).differentiate(batch).loss
        return loss, gradient(policy.model)

    (loss, one), (other_loss, other) = found((7, 8)), found((9, 3))
    assert loss == other_loss
    assert torch.equal(one, other)


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gpt2"])
def test_a_document_leaves_its_neighbours_alone_bit_for_bit(architecture):
    groups = random_groups(5, answers=1, prompts=4)
    policy = tiny_policy(architecture=architecture)
    before = policy.without_graph(collate(groups))
    other = replace(groups[0], prompt=tuple((t + 1) % 50 for t in groups[0].prompt))
    after = policy.without_graph(collate([other, *groups[1:]]))
    assert torch.equal(before[1:], after[1:])
    assert not torch.equal(before[0], after[0])


def test_two_forwards_in_training_mode_are_equal():
    """No dropout in any log-probability, though the configuration asks for it."""
    model = tiny_model("gpt2", dropout=True, resid_pdrop=0.5, attn_pdrop=0.5, embd_pdrop=0.5)
    policy = Policy(model, None, 10**6)
    batch = collate(random_groups(6))
    assert not torch.equal(policy.without_graph(batch), policy.without_graph(batch))
    switch_dropout_off(policy.model)
    assert policy.model.training
    assert torch.equal(policy.without_graph(batch), policy.without_graph(batch))
