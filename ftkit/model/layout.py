"""How a batch goes through a model: one flat stream of tokens, cut into segments, nothing padded.

A prompt with one answer is one segment, prompt and answer joined.  A prompt with several answers
is one segment, and each answer another that also sees the prompt: P + R_1 + ... + R_K tokens
instead of the K (P + max R) of padded rows.  Segments of equal length stand side by side, so that
attention can take them as one dense block without moving anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.core.batch import Batch


@dataclass(frozen=True, slots=True)
class Segment:
    """Queries ``start:stop`` of the stream; they see ``prefix_start:prefix_stop`` and their own."""

    start: int
    stop: int
    prefix_start: int = 0
    prefix_stop: int = 0

    @property
    def length(self) -> int:
        """How many tokens it has of its own."""
        return self.stop - self.start

    @property
    def prefix(self) -> int:
        """How many tokens it sees before its own."""
        return self.prefix_stop - self.prefix_start


@dataclass(frozen=True, slots=True)
class Layout:
    """A batch as one stream of N tokens, M of which are to be predicted."""

    tokens: Tensor
    """int64 [N]"""
    positions: Tensor
    """int64 [N]: place of each token in its own conversation, from 0."""
    segments: tuple[Segment, ...]
    """In the order of the stream, which they cover."""
    source: Tensor
    """int64 [M]: the place in the stream whose hidden state predicts the token."""
    target: Tensor
    """int64 [M]: the token predicted."""
    slot: Tensor
    """int64 [M]: its place in [B, K, T], flattened; ascending."""

    def to(self, device: torch.device) -> Layout:
        """Return this layout with its tensors on a device."""
        tensors = (self.tokens, self.positions, self.source, self.target, self.slot)
        tokens, positions, source, target, slot = (t.to(device, non_blocking=True) for t in tensors)
        return Layout(tokens, positions, self.segments, source, target, slot)

    def blocks(self) -> Iterator[tuple[int, Segment]]:
        """Yield (how many, the first) of each run of prefix-free segments of one length."""
        for (alone, _), run in groupby(self.segments, key=_block_key):
            members = list(run)
            if alone:
                yield len(members), members[0]
            else:
                yield from ((1, segment) for segment in members)


def _block_key(segment: Segment) -> tuple[bool, int]:
    return segment.prefix == 0, segment.length


def lay_out(batch: Batch, *, whole: bool = False) -> Layout:
    """Lay a batch out on the CPU.

    Tokens that no trained token depends on (the last trained one itself, and what follows it) are
    left out, since their hidden states would not be read; ``whole`` keeps them, for a head that
    scores each token.
    """
    needed = _needed(batch, whole)
    prompt_length = torch.tensor([len(prompt) for prompt in batch.prompts])
    prompt_at = torch.zeros(batch.size[0], dtype=torch.int64)
    answer_at = torch.zeros(batch.size[:2], dtype=torch.int64)
    tokens, positions, segments, at = [], [], [], 0
    for shared, length, b, k in sorted(_pieces(batch, needed)):
        prompt, p = batch.prompts[b], len(batch.prompts[b])
        answer = batch.tokens[b, k, : needed[b][k]]
        if shared:
            own, first = answer, p
            prefix = int(prompt_at[b])
            answer_at[b, k] = at
            segments.append(Segment(at, at + length, prefix, prefix + p))
        else:
            own, first = prompt if length == p else torch.cat((prompt, answer)), 0
            prompt_at[b], answer_at[b, k] = at, at + p
            segments.append(Segment(at, at + length))
        tokens.append(own)
        positions.append(torch.arange(first, first + length))
        at += length
    row, answer_of, place = batch.mask.nonzero(as_tuple=True)
    _, k_max, t_max = batch.size
    before = torch.where(
        place == 0, prompt_at[row] + prompt_length[row] - 1, answer_at[row, answer_of] + place - 1
    )
    return Layout(
        torch.cat(tokens),
        torch.cat(positions),
        tuple(segments),
        before,
        batch.tokens[row, answer_of, place],
        (row * k_max + answer_of) * t_max + place,
    )


def _pieces(batch: Batch, needed: list[list[int]]) -> Iterator[tuple[bool, int, int, int]]:
    """Yield (sees a shared prompt, length, row, answer) of each segment, in no order.

    A prompt comes with its first answer where that is the only one, else alone.
    """
    count = batch.present.sum(-1).tolist()
    for b, prompt in enumerate(batch.prompts):
        joined = count[b] == 1 and bool(batch.present[b, 0])
        yield False, len(prompt) + joined * needed[b][0], b, 0
        if not joined:
            yield from ((True, n, b, k) for k, n in enumerate(needed[b]) if n)


def _needed(batch: Batch, whole: bool) -> list[list[int]]:
    """Return how many tokens of each answer must go through the body."""
    if whole:
        lengths: list[list[int]] = batch.length.tolist()
        return lengths
    last = batch.mask * torch.arange(batch.size[2])
    needed: list[list[int]] = last.amax(-1).tolist() if batch.size[2] else last.sum(-1).tolist()
    return needed
