"""A reward model as judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ftkit.core.batch import collate
from ftkit.core.errors import Fault, UserError, user_error
from ftkit.core.group import Answer, Group
from ftkit.model.config import ModelConfig
from ftkit.model.load import load_scorer
from ftkit.model.tokenizer import load_tokenizer
from ftkit.verifiers.base import Item, Verdict
from ftkit.verifiers.config import ModelJudgeConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ftkit.model.policy import Policy

MICRO_TOKENS = 8192
"""Tokens that go through at once where nothing is said and there is no policy."""
ROWS = 64
"""Answers in a batch."""


class RewardModel:
    """Gives each answer what a reward model's head says at its last token."""

    def __init__(self, config: ModelJudgeConfig, place: str, policy: Policy | None) -> None:
        """Load it, where the policy is.

        Args:
            config: its part of the recipe.
            place: where that stands.
            policy: whose tokens it will read.

        Raises:
            UserError: if there is no such model, or it reads other tokens than the policy.
        """
        model = ModelConfig(path=config.path, dtype=config.dtype)
        known = None if policy is None else policy.micro_tokens
        try:
            tokenizer = load_tokenizer(model)
            if policy is not None and _others(policy.tokenizer, tokenizer):
                raise user_error(
                    "path",
                    f"the tokenizer of {config.path} is not the policy's",
                    "train a reward model from the same base",
                )
            self.scorer = load_scorer(
                model,
                tokenizer,
                micro_tokens=config.micro_tokens or known or MICRO_TOKENS,
                trainable=False,
                device=None if policy is None else policy.device,
            )
        except UserError as error:
            raise UserError(_moved(error, place)) from None
        self.threshold = config.threshold

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """Return the reward of each answer; without tokens it has none."""
        verdicts = [Verdict("error", None, "the answer's tokens are not known")] * len(items)
        known = [at for at, item in enumerate(items) if item.tokens and item.prompt_tokens]
        known.sort(key=lambda at: len(items[at].tokens) + len(items[at].prompt_tokens))
        for start in range(0, len(known), ROWS):
            chosen = known[start : start + ROWS]
            rows = [
                Group(str(at), items[at].prompt_tokens, (Answer(items[at].tokens),))
                for at in chosen
            ]
            values = self.scorer.without_graph(collate(rows))[:, 0]
            for row, at in enumerate(chosen):
                verdicts[at] = self._verdict(values[row, len(items[at].tokens) - 1].item())
        return verdicts

    def _verdict(self, reward: float) -> Verdict:
        if not math.isfinite(reward):
            return Verdict("error", None, f"the reward model says {reward}")
        if reward >= self.threshold:
            return Verdict("correct", reward)
        return Verdict("incorrect", reward, f"{reward:g} is less than {self.threshold:g}")


def _others(policy: PreTrainedTokenizerBase, judge: PreTrainedTokenizerBase) -> set[str]:
    """Return the policy's tokens that mean something else to the judge, or nothing.

    Padding apart, which nobody writes: saving a reward model may add it.
    """
    theirs = judge.get_vocab()
    found = {token for token, number in policy.get_vocab().items() if theirs.get(token) != number}
    return found - {policy.pad_token}


def _moved(error: UserError, place: str) -> list[Fault]:
    """Return faults of a model with their place in ``verify:`` before their own."""
    return [Fault(f"{place}.path", fault.found, fault.remedy) for fault in error.faults]
