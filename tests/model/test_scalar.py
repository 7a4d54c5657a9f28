"""The scorer: transformers' own rewards, at every token, on shared prompts; loaded or new."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForSequenceClassification

from ftkit.core.batch import collate
from ftkit.core.group import Answer, Group
from ftkit.model import attention
from ftkit.model.config import LoraConfig, ModelConfig
from ftkit.model.load import load_scorer, switch_dropout_off
from ftkit.model.scalar import Scorer
from ftkit.objectives.reward import Reward
from ftkit.parallel.world import OneProcess
from ftkit.train.config import TrainConfig
from ftkit.train.learner import Learner
from ftkit.train.optimizer import Optimizer
from tests.tiny import SIZES, VOCABULARY, gradient, random_groups

QWEN = {"architecture": "qwen2", **SIZES["qwen2"]}
PLAIN = {k: v for k, v in SIZES["qwen2"].items() if k != "tie_word_embeddings"}
LORA = LoraConfig(r=2, alpha=4.0)


def load(tokenizer, trainable=True, **config):
    return load_scorer(ModelConfig(**config), tokenizer, micro_tokens=1000, trainable=trainable)


def tiny_scorer(architecture="qwen2", micro_tokens=10**6, **values):
    attention.register()
    torch.manual_seed(0)
    values = {"vocab_size": VOCABULARY, **SIZES.get(architecture, {}), **values}
    config = AutoConfig.for_model(architecture, num_labels=1, **values)
    model = AutoModelForSequenceClassification.from_config(
        config, attn_implementation=attention.NAME
    )
    switch_dropout_off(model)
    return Scorer(model.train(), None, micro_tokens)


def shake(model):
    """Give what is zero at first, the head and the adapters, some values."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name or "score" in name:
                p.copy_(torch.randn(p.shape, generator=generator) / 4)


def own_rewards(model, batch):
    """[B, K, T] by transformers' class, one row at a time: there the last token is read."""
    model = model.eval()
    model.config.pad_token_id = None
    out = torch.zeros(batch.size)
    for b, k in batch.present.nonzero().tolist():
        for t in range(int(batch.length[b, k])):
            ids = torch.cat((batch.prompts[b], batch.tokens[b, k, : t + 1]))[None]
            with torch.no_grad():
                out[b, k, t] = model(input_ids=ids).logits.item()
    return out


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gpt2"])
@settings(max_examples=2, deadline=None)
@given(st.integers(0, 10**6))
def test_each_token_has_the_reward_of_the_row_that_it_ends(architecture, seed):
    """Also tokens that are not learnt; 0 where there is none."""
    scorer = tiny_scorer(architecture)
    batch = collate(random_groups(seed, prompts=2))
    expected = own_rewards(scorer.model, batch)
    with torch.no_grad():
        for way in ("segments", "rows"):
            scorer.way = way
            torch.testing.assert_close(scorer.forward(batch), expected, atol=2e-5, rtol=1e-4)
            scorer.micro_tokens = 9
            torch.testing.assert_close(scorer.without_graph(batch), expected, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(scorer.expected(batch), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("micro_tokens", [10**6, 9])
def test_the_gradient_depends_neither_on_the_way_nor_on_the_cut(micro_tokens):
    """LAWS L1, against transformers' class and autograd on whole rows."""
    batch = collate(random_groups(3, answers=3))
    objective = Reward(name="reward", center=0.1)

    def found(way, micro_tokens):
        scorer = tiny_scorer(micro_tokens=micro_tokens)
        scorer.way = way
        loss = Learner(scorer, objective, OneProcess()).differentiate(batch).loss
        return loss, gradient(scorer.model)

    scorer = tiny_scorer()
    whole = objective.loss(scorer.expected(batch), batch).terms.sum() / batch.size[0]
    whole.backward()
    for way in ("segments", "rows"):
        loss, grad = found(way, micro_tokens)
        assert loss == pytest.approx(whole.item(), rel=1e-5)
        torch.testing.assert_close(grad, gradient(scorer.model), atol=1e-6, rtol=1e-3)


def test_architectures_that_segments_do_not_know_go_by_rows(tokenizer, caplog):
    init = {"architecture": "mistral", **PLAIN, "head_dim": 8, "sliding_window": 4}
    scorer = load(tokenizer, init=init)
    assert scorer.way == "rows"
    assert "sliding_window" in caplog.text
    shake(scorer.model)
    batch = collate(random_groups(1))
    found = scorer.without_graph(batch)
    torch.testing.assert_close(found, own_rewards(scorer.model, batch), atol=1e-5, rtol=1e-4)


def some_pairs(seed, count):
    """The better answer has a 7 in it, wherever; the other is alike without one."""
    draw = random.Random(seed)

    def tokens(n):
        return [draw.randrange(10, VOCABULARY) for _ in range(n)]

    groups = []
    for i in range(count):
        good, bad = tokens(draw.randint(2, 6)), tokens(draw.randint(3, 7))
        good.insert(draw.randint(0, len(good)), 7)
        answers = (Answer((*good, 1)), Answer((*bad, 1)))
        groups.append(Group(str(i), tuple(tokens(3)), answers))
    return groups


@pytest.mark.parametrize("lora", [None, LoraConfig(r=8, alpha=16.0)])
def test_a_reward_model_learns_what_is_preferred(tokenizer, base, lora):
    """Held-out pairs in the right order, from a new head."""
    scorer = load(tokenizer, path=base, lora=lora, attention="rows")  # fast where all is short
    objective = Reward(name="reward")
    train = TrainConfig(lr=1e-2, weight_decay=0.0)
    optimizer, learner = Optimizer(scorer.model, train), Learner(scorer, objective, OneProcess())
    for step in range(30):
        optimizer.zero_grad()
        learner.differentiate(collate(some_pairs(step, 16)))
        optimizer.step(1e-2)
    batch = collate(some_pairs(-1, 100))
    rewards = objective.scores(scorer.without_graph(batch), batch)
    assert (rewards[:, 0] > rewards[:, 1]).float().mean() > 0.95
