"""The critic: values of the right states, advantages by hand, and gradients that add up."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
from torch import nn

from ftkit.core.batch import collate
from ftkit.core.errors import RunError
from ftkit.core.group import Answer, Group
from ftkit.objectives import PPO
from ftkit.objectives.value import Value
from ftkit.parallel.pieces import Stored, save_pieces
from ftkit.parallel.world import OneProcess
from ftkit.train.actor_critic import ActorCritic, BothOptimizers
from ftkit.train.config import TrainConfig
from ftkit.train.critic import Advantages, Critic
from ftkit.train.learner import Learner
from ftkit.train.optimizer import Optimizer
from tests.tiny import gradient, random_groups, tiny_policy

EXACT = {"rel": 1e-6, "abs": 1e-6}


def critic_of(policy=None, micro_tokens=10**6, way="segments"):
    policy = policy or tiny_policy(micro_tokens, way)
    torch.manual_seed(1)
    return Critic(policy.model, None, micro_tokens, way, nn.Linear(32, 1, bias=False))


@pytest.mark.parametrize("way", ["segments", "rows", "logits"])
def test_the_value_is_that_of_the_state_in_which_a_token_is_written(way):
    """Of the prompt and the tokens before it, and of nothing behind."""
    critic, groups = critic_of(micro_tokens=20, way=way), random_groups(1)
    batch = collate(groups)
    found, after = critic.without_graph(batch), critic.after(batch)

    def value(tokens):
        with torch.no_grad():
            states = critic.model.base_model(torch.tensor([tokens])).last_hidden_state
            return critic.head(states[0, -1]).item()

    for b, group in enumerate(groups):
        for k, answer in enumerate(group.answers):
            for t, learnt in enumerate(answer.mask()):
                before = [*group.prompt, *answer.tokens[:t]]
                expected = value(before) if learnt else 0.0
                assert found[b, k, t].item() == pytest.approx(expected, abs=1e-5)
            cut = answer.finish == "length" and answer.tokens
            end = value([*group.prompt, *answer.tokens]) if cut else 0.0
            assert after[b, k].item() == pytest.approx(end, abs=1e-5)
    assert after.any()
    torch.testing.assert_close(found, critic.expected(batch).detach(), rtol=1e-4, atol=1e-5)


class Says:
    """A critic that says one value behind answers that were cut."""

    def after(self, batch):
        return torch.full(batch.size[:2], 0.7).where(batch.truncated, 0.0)


def two_answers():
    """One that the policy ended, right; one that was cut."""
    ended = Answer((4, 5), reward=1.0, finish="stop", per_token={"value": (0.1, 0.2)})
    cut = Answer((6, 7), reward=0.0, finish="length", per_token={"value": (0.3, 0.4)})
    return [Group("a", (1,), (ended, cut))]


def of(groups, name):
    return [x for group in groups for answer in group.answers for x in answer.per_token[name]]


def normalized(values):
    x = torch.tensor(values, dtype=torch.float64)
    return ((x - x.mean()) / x.std(correction=0)).tolist()


def ppo(**constants):
    return PPO(name="ppo", **constants)


def test_advantages_by_hand():
    """V is 0 behind the end, the critic's behind a cut; the reward comes with the last token."""
    found, told = Advantages(Says(), ppo(gamma=0.9, lam=0.8), OneProcess())(two_answers())
    # δ = [.9 .2 - .1, 1 - .2], and [.9 .4 - .3, .9 .7 - .4]; A_0 = δ_0 + .72 A_1
    raw = [0.656, 0.8, 0.2256, 0.23]
    assert of(found, "advantage") == pytest.approx(normalized(raw), **EXACT)
    returns = [0.756, 1.0, 0.5256, 0.63]
    assert of(found, "returns") == pytest.approx(returns, **EXACT)
    spread = torch.tensor(returns).std(correction=0)
    missed = torch.tensor(raw).std(correction=0)
    assert told == pytest.approx(
        {
            "advantage": sum(raw) / 4,
            "advantage_deviation": missed.item(),
            "value": 0.25,
            "returns": sum(returns) / 4,
            "explained_variance": (1 - (missed / spread) ** 2).item(),
        },
        **EXACT,
    )


@pytest.mark.parametrize("constants", [{}, {"gamma": 0.5}, {"lam": 0.3}])
def test_every_constant_of_the_advantages_counts(constants):
    base = Advantages(Says(), ppo(), OneProcess())(two_answers())[0]
    other = Advantages(Says(), ppo(**constants), OneProcess())(two_answers())[0]
    assert (of(base, "returns") != of(other, "returns")) == bool(constants)


def test_the_kl_is_in_the_reward_of_each_token():
    """With γ = λ = 1 the return is all that is still earned."""
    groups = two_answers()
    known = {"old": (-1.0, -2.0), "reference": (-1.5, -1.8)}
    answers = (replace(a, per_token={**a.per_token, **known}) for a in groups[0].answers)
    groups = [groups[0].with_answers(*answers)]
    one = {"gamma": 1.0, "lam": 1.0, "beta": 0.1}
    found = Advantages(Says(), ppo(**one), OneProcess())(groups)[0]
    assert of(found, "returns") == pytest.approx([0.97, 1.02, 0.67, 0.72], **EXACT)
    found = Advantages(Says(), ppo(**one, kl_in="loss"), OneProcess())(groups)[0]
    assert of(found, "returns") == pytest.approx([1.0, 1.0, 0.7, 0.7], **EXACT)


def test_equal_advantages_and_none_at_all():
    same = Answer((4,), reward=1.0, finish="stop", per_token={"value": (0.5,)})
    found, told = Advantages(Says(), ppo(), OneProcess())([Group("a", (1,), (same, same))])
    assert of(found, "advantage") == [0.0, 0.0]
    assert told["explained_variance"] == 0.0
    found, told = Advantages(Says(), ppo(), OneProcess())([Group("a", (1,))])
    assert not of(found, "advantage")
    loss = ppo().loss(torch.zeros(1, 0, 0), collate(found))
    assert loss.terms.sum() == 0


class Ranks:
    """Two ranks in two threads."""

    def __init__(self):
        self.given, self.barrier = {}, threading.Barrier(2)

    def of(self, rank):
        ranks = self

        class World:
            def sum(self, x):
                ranks.given[rank] = x
                ranks.barrier.wait()
                total = ranks.given[0] + ranks.given[1]
                ranks.barrier.wait()
                return total

        return World()


def test_they_are_normalized_over_the_tokens_of_all_ranks():
    groups = [replace(g, answers=(a,)) for g in two_answers() for a in g.answers]
    whole, told = Advantages(Says(), ppo(), OneProcess())(groups)
    ranks, found = Ranks(), {}

    def work(rank):
        found[rank] = Advantages(Says(), ppo(), ranks.of(rank))(groups[rank : rank + 1])

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert of(found[0][0] + found[1][0], "advantage") == pytest.approx(of(whole, "advantage"))
    assert found[0][1] == pytest.approx(told) and found[1][1] == pytest.approx(told)


@pytest.mark.parametrize(
    ("value", "returns", "cost", "slope"),
    [
        (0.5, 1.0, 0.125, -0.5),  # within the limit: the plain square
        (0.5, 0.0, 0.125, 0.5),
        (0.9, 1.5, 0.405, 0.0),  # has gone .9 of .6 allowed towards its return: stays at .6
        (0.9, 0.0, 0.405, 0.9),  # away from its return: pulled back
        (0.9, 0.5, 0.08, 0.4),  # past its return: pulled back
    ],
)
def test_the_clip_of_values(value, returns, cost, slope):
    batch = collate([Group("a", (1,), (Answer((2,)),))])
    one = torch.ones(1, 1, 1)
    batch = batch.add(value=0 * one, returns=returns * one)
    v = (value * one).double().requires_grad_()
    loss = Value(clip=0.6, coef=2.0).loss(v, batch)
    (d,) = torch.autograd.grad(loss.terms.sum(), v)
    assert loss.terms.item() == pytest.approx(2 * cost, rel=1e-6)
    assert d.item() == pytest.approx(2 * slope, rel=1e-6, abs=1e-9)
    plain = Value().loss(v, batch)
    assert plain.terms.item() == pytest.approx((value - returns) ** 2 / 2, rel=1e-6)
    clipped = loss.metrics["value_clipped"]
    assert clipped.total.item() == float(value > 0.6)


def test_the_critics_gradient_does_not_depend_on_how_the_batch_is_cut():
    """LAWS L1, and the value of the loss by a loop."""
    groups, found = random_groups(2), []
    batch = collate(groups)
    for micro_tokens, way in ((10**6, "segments"), (9, "segments"), (30, "rows")):
        critic = critic_of(micro_tokens=micro_tokens, way=way)
        outcome = Learner(critic, Value(clip=0.2), OneProcess()).differentiate(batch)
        found.append((outcome.loss, gradient(critic.model), critic.head.weight.grad))
    v, old, returns = critic.without_graph(batch), batch["value"], batch["returns"]
    near = old + (v - old).clamp(-0.2, 0.2)
    worst = torch.maximum((v - returns) ** 2, (near - returns) ** 2)[batch.mask]
    for loss, body, head in found:
        assert loss == pytest.approx(worst.mean().item() / 2, rel=1e-5)
        torch.testing.assert_close(body, found[0][1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(head, found[0][2], rtol=1e-4, atol=1e-5)


def test_on_a_shared_body_both_gradients_add_up():
    batch, gradients = collate(random_groups(3)), []
    for which in ("policy", "critic", "both"):
        policy = tiny_policy()
        critic = critic_of(policy)
        values = Learner(critic, Value(coef=0.5), OneProcess())
        if which == "both":
            both = ActorCritic(policy, ppo(), OneProcess(), critic=values)
            outcome = both.differentiate(batch)
        else:
            one = values if which == "critic" else Learner(policy, ppo(), OneProcess())
            gradients.append([one.differentiate(batch).loss])
        gradients.append(gradient(policy.model))
    (of_policy,), a, (of_critic,), b, both = gradients
    assert outcome.loss == pytest.approx(of_policy)
    assert outcome.metrics["value_loss"] == pytest.approx(2 * of_critic)
    torch.testing.assert_close(a + b, both, rtol=1e-4, atol=1e-6)


def test_a_critic_that_is_no_number_stops_the_run():
    batch, policy = collate(random_groups(3)), tiny_policy()
    critic = critic_of()
    critic.head.weight.data.fill_(torch.nan)
    both = ActorCritic(policy, ppo(), OneProcess(), critic=Learner(critic, Value(), OneProcess()))
    with pytest.raises(RunError, match="the critic's loss is nan"):
        both.differentiate(batch)


def test_two_optimizers_as_one(tmp_path):
    """Each clips its own gradient and has its own rate, in the same schedule."""
    layers = [nn.Linear(1, 1, bias=False) for _ in range(2)]
    config = TrainConfig(lr=0.1, optimizer="sgd", max_grad_norm=1.0, momentum=0.9)
    one, other = (Optimizer(layer, config) for layer in layers)
    both = BothOptimizers(one, other, 10.0)
    assert set(both.pieces()) == {"weight", "critic.weight"}
    with torch.no_grad():
        for layer in layers:
            layer.weight.fill_(1.0)
    both.zero_grad()
    layers[0](torch.tensor([[5.0]])).backward()
    layers[1](torch.tensor([[0.5]])).backward()
    told = both.step(0.01)
    assert told == pytest.approx({"grad_norm": 5.0, "lr": 0.01, "critic_grad_norm": 0.5})
    assert [layer.weight.item() for layer in layers] == pytest.approx([0.99, 0.95])
    save_pieces(both.pieces(), tmp_path / "shard")
    again = [nn.Linear(1, 1, bias=False) for _ in range(2)]
    other = BothOptimizers(*(Optimizer(layer, config) for layer in again), 10.0)
    other.load(Stored.at([tmp_path / "shard"]))
    for each, layer in ((both, layers), (other, again)):
        each.zero_grad()
        layer[1](torch.tensor([[0.5]])).backward()
        layer[0](torch.tensor([[0.5]])).backward()
        each.step(0.01)
    assert [a.weight.item() for a in again] == [b.weight.item() for b in layers]


def test_a_critics_gradient_that_is_no_number_leaves_the_policy_as_it_was():
    layers = [nn.Linear(1, 1, bias=False) for _ in range(2)]
    config = TrainConfig(lr=0.1, optimizer="sgd")
    both = BothOptimizers(*(Optimizer(layer, config) for layer in layers), 1.0)
    before = [layer.weight.item() for layer in layers]
    layers[0](torch.ones(1, 1)).backward()
    layers[1](torch.full((1, 1), torch.nan)).backward()
    with pytest.raises(RunError, match="the critic's gradient has norm nan"):
        both.step(0.1)
    assert [layer.weight.item() for layer in layers] == before
