"""Parts of a batch: all of it, nothing twice, and none larger than is allowed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.core.batch import collate
from ftkit.core.part import cut, groups_fit
from tests.tiny import random_groups


def size(part, batch, padded):
    """Tokens that go through a model with a part."""
    prompts = [len(batch.prompts[row]) for row in part.rows]
    own = [
        [int(batch.length[row, k]) for k in answers]
        for row, answers in zip(part.rows, part.answers, strict=True)
    ]
    if padded:
        longest = max(p + max(lengths) for p, lengths in zip(prompts, own, strict=True))
        return sum(map(len, own)) * longest
    return sum(prompts) + sum(map(sum, own))


@pytest.mark.parametrize("padded", [False, True])
@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), micro_tokens=st.integers(1, 60))
def test_parts_hold_every_answer_once_and_keep_to_the_budget(padded, seed, micro_tokens):
    batch = collate(random_groups(seed))
    parts = list(cut(batch, micro_tokens, padded=padded))
    seen = [
        (row, k)
        for part in parts
        for row, answers in zip(part.rows, part.answers, strict=True)
        for k in answers
    ]
    assert sorted(seen) == [tuple(pair) for pair in batch.present.nonzero().tolist()]
    for part in parts:
        alone = sum(map(len, part.answers)) == 1
        assert alone or size(part, batch, padded) <= micro_tokens
    whole = torch.full(batch.size, -1.0)
    for part in parts:
        part.put(whole, part.of(batch).tokens.float())
    assert torch.equal(whole[batch.mask], batch.tokens[batch.mask].float())


@pytest.mark.parametrize("padded", [False, True])
@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), micro_tokens=st.integers(1, 60))
def test_groups_fit_where_whole_groups_keep_to_the_budget(padded, seed, micro_tokens):
    batch = collate(random_groups(seed))
    parts = list(cut(batch, micro_tokens, groups=True, padded=padded))
    assert sorted(row for part in parts for row in part.rows) == list(range(batch.size[0]))
    within = [
        size(part, batch, padded) <= micro_tokens
        for part in parts
        if sum(map(len, part.answers)) > 1
    ]
    assert groups_fit(batch, micro_tokens, padded=padded) == all(within)
