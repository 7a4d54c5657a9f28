"""What samplers have in common: how long an answer may be, and what is made of drawn tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ftkit.core.errors import user_error
from ftkit.core.group import Answer


class Drawn(NamedTuple):
    """What was drawn for one answer."""

    tokens: list[int]
    """With the stop token, if there was one."""
    logp: list[float]
    """The log-probability of each, in nats, under the distribution that was sampled."""


def answers_of(drawn: Sequence[Drawn], tokenizer: Any, stop: Sequence[int]) -> list[Answer]:
    """Return answers with their text and how they ended.

    Args:
        drawn: what was sampled.
        tokenizer: decodes it.
        stop: ids of tokens that end an answer.
    """
    last = frozenset(stop)
    ended = [bool(tokens) and tokens[-1] in last for tokens, _ in drawn]
    texts = tokenizer.batch_decode(
        [row.tokens[:-1] if end else row.tokens for row, end in zip(drawn, ended, strict=True)],
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )
    return [
        Answer(tuple(tokens), text=text, finish="stop" if end else "length", logp=tuple(logp))
        for (tokens, logp), text, end in zip(drawn, texts, ended, strict=True)
    ]


def positions_of(model: Any) -> int | None:
    """Return how many tokens a model reads at most; None = its configuration does not say."""
    config = model.config.get_text_config(decoder=True)
    positions: int | None = getattr(config, "max_position_embeddings", None)
    return positions


def room_of(model: Any, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[int]:
    """Return how many tokens an answer to each prompt may have.

    Raises:
        UserError: if a prompt leaves no room for an answer in the model's positions.
    """
    positions = positions_of(model)
    if positions is None:
        return [max_tokens] * len(prompts)
    room = [min(positions - len(prompt), max_tokens) for prompt in prompts]
    if min(room) < 1:
        raise user_error(
            "",
            f"a prompt of {max(map(len, prompts))} tokens fills all {positions} positions",
            "shorten it",
        )
    return room
