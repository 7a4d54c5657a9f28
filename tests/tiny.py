"""Tiny models, tokenless policies and ragged groups that tests share."""

from __future__ import annotations

import random

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ftkit.core.batch import Batch, collate
from ftkit.core.group import Answer, Group, content_id
from ftkit.model import attention
from ftkit.model.load import switch_dropout_off
from ftkit.model.policy import Policy

VOCABULARY = 50

KINDS = ("sampler", "augmented", "prompt", "reference")
"""Of the log-probabilities that may be known of an answer beforehand."""

PER_TOKEN = ("old", "reference", "advantage", "value", "returns")
"""Of what may be known of each token."""

SIZES = {
    "qwen2": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "llama": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
}


def tiny_model(architecture: str = "qwen2", seed: int = 0, dropout: bool = False, **values):
    """A random causal LM with our attention, in training mode."""
    attention.register()
    torch.manual_seed(seed)
    values = {"vocab_size": VOCABULARY, **SIZES.get(architecture, {}), **values}
    config = AutoConfig.for_model(architecture, **values)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention.NAME)
    if not dropout:
        switch_dropout_off(model)
    return model.train()


def tiny_policy(micro_tokens: int = 10**6, way: str = "segments", **values) -> Policy:
    return Policy(tiny_model(**values), None, micro_tokens, way=way)


def random_groups(seed: int, prompts: int = 6, answers: int = 3, longest: int = 7) -> list[Group]:
    """Ragged groups: prompts of 1 to 5 tokens, 1 to ``answers`` answers of 0 to ``longest`` tokens,
    some with untrained stretches, with rewards 0 or 1."""
    draw = random.Random(seed)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(draw.randrange(VOCABULARY) for _ in range(n))

    def answer(n: int) -> Answer:
        learn = None if n < 4 or draw.random() < 0.5 else ((0, 1), (2, n - 1))
        logps = {kind: -draw.uniform(5, 40) for kind in KINDS}
        known = {name: tuple(draw.uniform(-4.3, -2.9) for _ in range(n)) for name in PER_TOKEN[:2]}
        known |= {name: tuple(x + 3.6 for x in known["old"]) for name in PER_TOKEN[2:]}
        reward, finish = float(draw.random() < 0.5), "length" if draw.random() < 0.2 else "stop"
        return Answer(
            tokens(n), learn=learn, reward=reward, logps=logps, finish=finish, per_token=known
        )

    groups = []
    for _ in range(prompts):
        prompt = tokens(draw.randint(1, 5))
        mine = [answer(draw.randint(0, longest)) for _ in range(draw.randint(1, answers))]
        mine[0] = answer(draw.randint(1, longest))  # the demonstration is not empty
        groups.append(Group(content_id(prompt, mine[0].tokens), prompt, tuple(mine)))
    return groups


def batch_for(objective, groups) -> Batch:
    """The batch that an objective is given: with what it reads, and some prompts unseen."""
    batch = collate(groups, sorted(objective.columns - {"carry"}))
    if "carry" not in objective.columns:
        return batch
    seen = [sum(map(ord, group.id)) % 4 for group in groups]
    carry = [float("nan") if s % 2 else s - 3.0 for s in seen]
    return batch.add(carry=torch.tensor(carry, dtype=torch.float64))


def gradient(model) -> torch.Tensor:
    """All gradients, joined."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
