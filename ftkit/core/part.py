"""Cutting a batch into parts that fit through a model at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftkit.core.batch import Batch
from ftkit.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Part:
    """Some answers of some prompts of a batch: what goes through a model at once."""

    rows: tuple[int, ...]
    """Rows of the batch; a row may come twice, with other answers."""
    answers: tuple[tuple[int, ...], ...]
    """For each of these rows, which of its answers."""

    def of(self, batch: Batch) -> Batch:
        """Return this part of a batch, cut to its longest answer."""
        row, answer, valid = self._index()
        length = torch.where(valid, batch.length[row, answer], 0)
        longest = int(length.max())
        columns = {}
        for name, column in batch.columns.items():
            if column.dim() == 1:
                columns[name] = column[row[:, 0]]
                continue
            own = column[row, answer]
            own = own[..., :longest] if own.dim() == 3 else own  # noqa: PLR2004 ([B, K, T])
            keep = valid.view(*valid.shape, *[1] * (own.dim() - 2))
            columns[name] = torch.where(keep, own, torch.zeros((), dtype=own.dtype))
        return Batch(
            tuple(batch.ids[r] for r in self.rows),
            tuple(batch.prompts[r] for r in self.rows),
            columns,
        )

    def put(self, whole: Tensor, part: Tensor) -> None:
        """Write what is known of this part, [b, k, t], into its place in [B, K, T]."""
        row, answer, valid = self._index()
        n, j = valid.nonzero(as_tuple=True)
        whole[row[n, j], answer[n, j], : part.shape[-1]] = part[n, j]

    def take(self, whole: Tensor, longest: int) -> Tensor:
        """Return this part, [b, k, longest], of [B, K, T]; 0 where there is no answer."""
        row, answer, valid = self._index()
        own = whole[row, answer, :longest]
        return torch.where(valid[..., None].to(own.device), own, torch.zeros_like(own))

    def _index(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return (row, answer, whether there is one), each [b, k]."""
        k = max(len(answers) for answers in self.answers)
        answer = torch.zeros(len(self.rows), k, dtype=torch.int64)
        valid = torch.zeros(len(self.rows), k, dtype=torch.bool)
        for i, answers in enumerate(self.answers):
            answer[i, : len(answers)] = torch.tensor(answers, dtype=torch.int64)
            valid[i, : len(answers)] = True
        return torch.tensor(self.rows)[:, None].expand_as(answer), answer, valid


def cut(
    batch: Batch, micro_tokens: int, *, groups: bool = False, padded: bool = False
) -> Iterator[Part]:
    """Cut a batch into parts of at most ``micro_tokens`` tokens.

    A group of answers is cut only where it is larger than that by itself, and never with
    ``groups``.  An answer larger by itself goes alone.  ``padded`` counts the places of padded
    rows, each with its own prompt, and not real tokens.
    """
    lengths: Sequence[Sequence[int]] = batch.length.tolist()
    present = batch.present.tolist()
    rows: list[int] = []
    answers: list[tuple[int, ...]] = []
    used = count = longest = 0
    for b, prompt in enumerate(batch.prompts):
        mine = [k for k in range(batch.size[1]) if present[b][k]] or [0]
        budget = -1 if padded else micro_tokens - len(prompt)  # padded: each answer by itself
        for chunk in _chunks(mine, lengths[b], budget, groups):
            cost = len(prompt) + sum(lengths[b][k] for k in chunk)
            row = len(prompt) + max(lengths[b][k] for k in chunk)
            after = (count + len(chunk)) * max(longest, row) if padded else used + cost
            if rows and after > micro_tokens:
                yield Part(tuple(rows), tuple(answers))
                rows, answers = [], []
                used = count = longest = 0
            rows.append(b)
            answers.append(chunk)
            used, count, longest = used + cost, count + len(chunk), max(longest, row)
    if rows:
        yield Part(tuple(rows), tuple(answers))


def groups_fit(batch: Batch, micro_tokens: int, *, padded: bool = False) -> bool:
    """Whether no group of several answers is larger than ``micro_tokens`` by itself (``cut``)."""
    lengths: Sequence[Sequence[int]] = batch.length.tolist()
    count: Sequence[int] = batch.present.sum(-1).tolist()
    for prompt, own, answers in zip(batch.prompts, lengths, count, strict=True):
        real = len(prompt) + sum(own)
        tokens = answers * (len(prompt) + max(own)) if padded else real
        if answers > 1 and tokens > micro_tokens:
            return False
    return True


def _chunks(
    answers: list[int], lengths: Sequence[int], budget: int, whole: bool
) -> Iterator[tuple[int, ...]]:
    """Cut one prompt's answers where they do not fit together."""
    chunk: list[int] = []
    used = 0
    for k in answers:
        if chunk and not whole and used + lengths[k] > budget:
            yield tuple(chunk)
            chunk, used = [], 0
        chunk.append(k)
        used += lengths[k]
    yield tuple(chunk)
