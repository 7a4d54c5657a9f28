"""ftkit as the benchmarks run it: what ``ftkit train`` does in a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ftkit.core.batch import collate
from ftkit.core.group import Answer, Group
from ftkit.model import attention
from ftkit.model.policy import Policy
from ftkit.parallel.world import OneProcess
from ftkit.samplers.base import Sampler
from ftkit.samplers.hf import HFSampler
from ftkit.train.config import TrainConfig
from ftkit.train.learner import Learner
from ftkit.train.optimizer import Optimizer
from scripts.bench import LR, new_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ftkit.core.batch import Batch
    from ftkit.objectives import Objective
    from ftkit.samplers.config import SampleConfig
    from scripts.bench import Watch

AGREEMENT = 1e-4
"""By how much the log-probability of a token may differ between sampler and trainer, in nats."""
SHARPER = 8.0
"""What logits are multiplied by to compare them: those of random weights say next to nothing."""


def new_policy(micro_tokens: int) -> Policy:
    """Return the model that all peers start from, read as one stream of tokens."""
    attention.register()
    model: Any = new_model().train()
    model.set_attn_implementation(attention.NAME)
    return Policy(model, None, micro_tokens=micro_tokens)


def take_steps(
    policy: Policy, objective: Objective, batches: Iterable[Batch], watch: Watch
) -> None:
    """Take a step on each batch."""
    learner = Learner(policy, objective, OneProcess())
    optimizer = Optimizer(policy.model, TrainConfig(lr=LR))
    watch.turn()
    for batch in batches:
        optimizer.zero_grad()
        outcome = learner.differentiate(batch)
        watch.differentiated(outcome.loss, outcome.trained, policy.model)
        optimizer.step(LR)
        watch.turn()


@dataclass
class Given(Sampler):
    """A sampler that has the first answers from elsewhere."""

    first: Sequence[Sequence[int]] | None
    then: Sampler

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        answers: int,
        seed: int,
        keys: Sequence[int] | None = None,
    ) -> list[list[Answer]]:
        """Return answers (``Sampler.generate``)."""
        if self.first is None:
            return self.then.generate(prompts, answers=answers, seed=seed, keys=keys)
        known = [Answer(tuple(tokens), finish="length") for tokens in self.first]
        self.first = None
        return [known[i : i + answers] for i in range(0, len(known), answers)]


def agreement(
    policy: Policy, prompts: Sequence[Sequence[int]], config: SampleConfig, tokenizer: Any
) -> str:
    """Sample answers; assert that the trainer finds the log-probabilities that the sampler kept.

    Args:
        policy: its logits are made ``SHARPER``.
        prompts: token ids.
        config: how many answers, of how many tokens, at which temperature.
        tokenizer: of the answers.

    Returns:
        By how much they differ.
    """
    torch.set_num_threads(1)
    body: Any = policy.model.model
    with torch.no_grad():
        body.norm.weight.mul_(SHARPER)
    sampler = HFSampler(policy.model, tokenizer, config, stop=())
    written = sampler.generate(prompts, answers=config.answers, seed=0)
    batch = collate(
        [Group("", tuple(p), tuple(answers)) for p, answers in zip(prompts, written, strict=True)]
    )
    with policy.at(config.temperature):
        found = policy.without_graph(batch)
    sampled = torch.tensor([[answer.logp for answer in answers] for answers in written])
    apart, entropy = (found - sampled).abs(), -sampled.mean()
    assert apart.max() < AGREEMENT, (config.temperature, apart.max())
    return (
        f"{apart.mean():.0e} nats a token on average and {apart.max():.0e} at most "
        f"({apart.numel()} tokens, on average {entropy:.2f} nats)"
    )
