"""Rollouts: who is asked what, what is learnt from, and what a checkpoint must hold."""

from __future__ import annotations

import json

import pytest
import torch

from ftkit.core.batch import collate
from ftkit.core.errors import RunError
from ftkit.core.group import Answer, Group, content_id
from ftkit.data.order import Order
from ftkit.parallel.world import OneProcess
from ftkit.samplers.config import SampleConfig
from ftkit.samplers.hf import HFSampler
from ftkit.sources.asking import Asking
from ftkit.sources.rollouts import Rollouts, is_mixed
from ftkit.verifiers.base import Verdict
from tests.tiny import tiny_policy

PROMPTS = 12


class Words:
    """A tokenizer that writes numbers."""

    def batch_decode(self, rows, **_):
        return [" ".join(map(str, row)) for row in rows]


class Parity:
    """Judges by the sum of the tokens; cannot judge answers that begin with one of ``blind``."""

    def __init__(self, blind=(), right=lambda tokens: sum(tokens) % 2):
        self.blind, self.right = blind, right

    def judge(self, items):
        return [
            Verdict("error", None, "blind")
            if item.tokens[0] in self.blind
            else Verdict(
                "correct" if self.right(item.tokens) else "incorrect",
                float(self.right(item.tokens)),
            )
            for item in items
        ]

    def close(self):
        pass


def rows(n=PROMPTS):
    return [Group(content_id([i], []), (i,), prompt_text=str(i)) for i in range(n)]


def source(judge=None, *, prompts=3, keeps_old=True, binary=False, **values):
    policy = tiny_policy()
    policy.tokenizer = Words()
    config = SampleConfig(temperature=0.7, max_tokens=3, answers=4)
    asking = Asking(
        policy=policy,
        world=OneProcess(),
        sampler=HFSampler(policy.model, policy.tokenizer, config, [7]),
        judge=judge or Parity(),
        answers=4,
        temperature=0.7,
        seed=5,
        keeps_old=keeps_old,
        binary=binary,
    )
    order = Order([PROMPTS], [1.0], 5)
    return Rollouts([rows()], order, prompts, OneProcess(), asking, **values)


def prompts_of(groups):
    return [group.prompt[0] for group in groups]


def test_each_prompt_is_asked_once_an_epoch_and_learnt_from_in_every_pass():
    many = source(updates=2, epochs=2)
    steps = [prompts_of(many.groups(step)) for step in range(1, 9)]
    first, second = steps[:4], steps[4:]
    for one in (first, second):
        passes = sorted(one[0] + one[1]), sorted(one[2] + one[3])
        assert passes[0] == passes[1]
        assert len(set(passes[0])) == 6
    assert sorted(first[0] + first[1] + second[0] + second[1]) == list(range(PROMPTS))


def test_old_log_probabilities_are_the_trainers_at_the_samples_temperature():
    rolled = source(updates=2)
    batch = collate(rolled.groups(1))
    policy = rolled.asking.policy
    with policy.at(0.7):
        torch.testing.assert_close(batch["old"], policy.without_graph(batch))
    assert rolled.told()["sampler_gap"] < 1e-5
    assert not rolled.told(), "each is told once"


def test_one_update_a_rollout_keeps_nothing():
    assert "old" not in collate(source(keeps_old=False).groups(1)).columns


def test_answers_to_a_prompt_and_to_a_prompt_asked_again_differ():
    rolled = source(prompts=PROMPTS)
    seen = [
        answer.tokens
        for step in (1, 2)
        for group in sorted(rolled.groups(step), key=lambda g: g.prompt)[:1]
        for answer in group.answers
    ]
    assert len(set(seen)) == len(seen)


def test_a_rollout_comes_back_from_a_checkpoint():
    straight, broken = (source(updates=2, drop=True, refill=1) for _ in range(2))
    whole = [straight.groups(step) for step in range(1, 6)]
    for step in range(1, 4):
        broken.groups(step)
    state = json.loads(json.dumps(broken.state()))
    resumed = source(updates=2, drop=True, refill=1)
    resumed.load([state])
    assert [resumed.groups(step) for step in (4, 5)] == whole[3:]


def test_answers_that_could_not_be_judged_are_left_out():
    rolled = source(Parity(blind=range(25)), prompts=PROMPTS)
    groups = rolled.groups(1)
    told = rolled.told()
    assert 0.2 < told["error"] < 0.8
    assert all(answer.reward is not None for group in groups for answer in group.answers)
    assert sum(len(group.answers) for group in groups) == round((1 - told["error"]) * 4 * PROMPTS)


def test_prompts_whose_answers_are_alike_are_replaced():
    plain, dropping = source(prompts=6), source(prompts=6, drop=True, refill=2)
    rare = Parity(right=lambda tokens: sum(tokens) % 5 == 0)
    plain.asking.judge = dropping.asking.judge = rare
    assert not all(map(is_mixed, plain.groups(1)))
    groups = dropping.groups(1)
    assert all(map(is_mixed, groups))
    assert dropping.asked > plain.asked
    assert 0 < dropping.told()["dropped"] < 1


def test_a_run_goes_on_where_all_answers_are_alike():
    rolled = source(Parity(right=lambda _: False), drop=True, refill=3)
    assert len(rolled.groups(1)) == 3
    assert rolled.told()["dropped"] == 1


def test_odd_rewards_are_refused_by_name_where_they_mean_nothing():
    class Half(Parity):
        def judge(self, items):
            return [Verdict("incorrect", 0.5) for _ in items]

    with pytest.raises(RunError, match=r"reward 0\.5.*method\.threshold"):
        source(Half(), binary=True).groups(1)
    with pytest.raises(RunError, match="no number"):

        class Broken(Parity):
            def judge(self, items):
                return [Verdict("correct", float("nan")) for _ in items]

        source(Broken()).groups(1)


def test_what_is_written_down_has_rewards_and_verdicts():
    rolled = source(logged=2)
    rolled.groups(1)
    lines = [json.loads(json.dumps(line)) for line in rolled.samples()]
    assert [line["decoding"] for line in lines] == ["rollout"] * 2
    assert not rolled.samples()
    answers = [answer for line in lines for answer in line["answers"]]
    assert {answer["status"] for answer in answers} <= {"correct", "incorrect"}
    assert all(isinstance(Answer(**answer).reward, float) for answer in answers)


class Other(OneProcess):
    """One of several ranks, of which nothing is asked that needs the others."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size


@pytest.mark.parametrize(("size", "updates", "count"), [(2, 2, 12), (3, 4, 24), (2, 3, 17)])
def test_mini_batches_are_the_same_for_any_ranks_and_evenly_theirs(size, updates, count):
    def dealt(world):
        rolled = source(updates=updates)
        rolled.world, rolled.count, rolled.rollout = world, count, 1
        batches = [list(rolled._mini_batch(0, part)) for part in range(updates)]
        return [[place for place in batch if rolled._is_mine(place)] for batch in batches]

    whole = dealt(OneProcess())
    shares = [dealt(Other(rank, size)) for rank in range(size)]
    assert sorted(place for batch in whole for place in batch) == list(range(count))
    for part, batch in enumerate(whole):
        mine = [share[part] for share in shares]
        assert sorted(place for own in mine for place in own) == sorted(batch)
        assert max(map(len, mine)) - min(map(len, mine)) <= 1
