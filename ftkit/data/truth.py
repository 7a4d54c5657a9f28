"""What a verifier compares answers with, where a row has only a demonstration of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftkit.core.group import Answer, Group


def with_truth(group: Group, tokenizer: Any, stop: Sequence[int]) -> Group:
    """Return a group with a truth: its own, or the text of its demonstration; None of neither."""
    if group.truth is not None or not group.answers:
        return group
    tokens = _first_turn(group.answers[0])
    spoken = tokens[:-1] if tokens and tokens[-1] in stop else tokens
    if not spoken:
        return group
    truth = tokenizer.decode(spoken, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return replace(group, truth=truth)


def _first_turn(demonstration: Answer) -> tuple[int, ...]:
    """Return what answers the prompt: the first learnt stretch; later turns answer other ones."""
    start, end = (demonstration.learn or ((0, len(demonstration.tokens)),))[0]
    return demonstration.tokens[start:end]
