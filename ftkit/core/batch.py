"""The one thing that an objective sees: B prompts, K answers to each, T tokens in each answer.

Every method compares answers to the same prompt, so every method reads the same three axes; only K
differs: 1 for pretrain and sft, 2 for dpo and reward models (chosen, rejected), 1 + m for dft (the
demonstration and m negatives), and the group size for the online methods.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftkit.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.core.group import Group


class ColumnMissingError(LookupError):
    """An objective read a column that nothing has added."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Answers to B prompts; the prompt is held apart, once, and T counts what follows it.

    A per-token column holds at position t what is known of token t of the answer given the prompt
    and the tokens before it.  No column is shifted.  Prompts with fewer than K answers, and answers
    with fewer than T tokens, are padded on the right: ``present`` and ``mask`` say what is real.
    """

    ids: tuple[str, ...]
    """Content hash of each prompt and its demonstration (``Group.id``)."""
    prompts: tuple[Tensor, ...]
    """int64 [P_b] for each b, on the CPU: the prompts' tokens, ragged; each has at least one."""
    columns: Mapping[str, Tensor]

    @property
    def tokens(self) -> Tensor:
        """int64 [B, K, T]: the tokens of each answer."""
        return self["tokens"]

    @property
    def length(self) -> Tensor:
        """int64 [B, K]: how many tokens each answer has; 0 where none is present."""
        return self["length"]

    @property
    def mask(self) -> Tensor:
        """Bool [B, K, T]: True where the policy wrote, or shall learn to write, the token."""
        return self["mask"]

    @property
    def present(self) -> Tensor:
        """Bool [B, K]: True where there is an answer (an empty answer is one)."""
        return self["present"]

    @property
    def truncated(self) -> Tensor:
        """Bool [B, K]: True where the length limit cut the answer."""
        return self["truncated"]

    def old(self, logp: Tensor) -> Tensor:
        """Return log-probabilities under the policy that sampled, float32 [B, K, T].

        Where a rollout serves one update nobody has kept them: they are the present ones.

        Args:
            logp: the present ones; a graph that they have is left out.
        """
        return self.columns.get("old", logp.detach())

    @property
    def reward(self) -> Tensor:
        """float32 [B, K]: how good each answer is."""
        return self["reward"]

    def __getitem__(self, column: str) -> Tensor:
        """Return a column.

        Raises:
            ColumnMissingError: if nothing has added it.
        """
        if column not in self.columns:
            have = ", ".join(sorted(self.columns))
            raise ColumnMissingError(f"no column '{column}'; the batch has {have}")
        return self.columns[column]

    @property
    def size(self) -> tuple[int, int, int]:
        """(B, K, T)."""
        b, k, t = self.tokens.shape
        return b, k, t

    def count(self, unit: str) -> int:
        """Return how many of a unit (``token``, ``answer``, ``prompt``, ``batch``) there are."""
        if unit == "token":
            return int(self.mask.sum())
        if unit == "answer":
            return int(self.present.sum())
        return self.size[0] if unit == "prompt" else 1

    def add(self, **columns: Tensor) -> Batch:
        """Return this batch with columns added."""
        return Batch(self.ids, self.prompts, {**self.columns, **columns})

    def take(self, rows: Sequence[int]) -> Batch:
        """Return some of the prompts, each with all of its answers."""
        index = torch.as_tensor(rows, dtype=torch.int64)
        return Batch(
            tuple(self.ids[row] for row in rows),
            tuple(self.prompts[row] for row in rows),
            {name: column[index.to(column.device)] for name, column in self.columns.items()},
        )

    def at(self, slot: Tensor) -> Batch:
        """Return single tokens as a batch of m prompts with one answer of one token each.

        What an objective whose terms depend on one token each needs to be computed on a part of
        them.

        Args:
            slot: int64 [m], places in [B, K, T], flattened, on the columns' device.
        """
        _, k, t = self.size
        steps = {1: k * t, 2: t, 3: 1}
        columns = {
            name: column.flatten()[slot // steps[column.dim()]].view(-1, *[1] * (column.dim() - 1))
            for name, column in self.columns.items()
        }
        return Batch((), (), columns)

    def to(self, device: torch.device) -> Batch:
        """Return this batch with its columns on a device; prompts stay where they are."""
        return Batch(
            self.ids,
            self.prompts,
            {name: column.to(device, non_blocking=True) for name, column in self.columns.items()},
        )


def collate(groups: Sequence[Group], columns: Iterable[str] = ()) -> Batch:
    """Make one batch of groups, on the CPU.

    Args:
        groups: those of this rank; there may be none.
        columns: which columns ``logp_X`` to add: float64 [B, K], the answer's ``logps["X"]``; NaN
            where an answer has none, 0 where there is no answer.  What all answers know
            ``per_token`` is added anyhow.

    Raises:
        ColumnMissingError: if no answer at all has a log-probability that is asked for.
    """
    answers = max((len(group.answers) for group in groups), default=0)
    answers = max(answers, 1)
    longest = max((len(a.tokens) for group in groups for a in group.answers), default=0)
    shape = (len(groups), answers, longest)
    tokens, mask = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
    length, reward = torch.zeros(shape[:2], dtype=torch.int64), torch.zeros(shape[:2])
    present, truncated = (torch.zeros(shape[:2], dtype=torch.bool) for _ in range(2))
    for b, group in enumerate(groups):
        for k, answer in enumerate(group.answers):
            n = len(answer.tokens)
            tokens[b, k, :n] = torch.tensor(answer.tokens, dtype=torch.int64)
            mask[b, k, :n] = torch.tensor(answer.mask(), dtype=torch.bool)
            length[b, k], present[b, k] = n, True
            reward[b, k], truncated[b, k] = answer.reward or 0.0, answer.finish == "length"
    known = {name: _logps(groups, name.removeprefix("logp_"), shape[:2]) for name in columns}
    own = {"tokens": tokens, "mask": mask, "length": length, "present": present, "reward": reward}
    own |= {"truncated": truncated, **_per_token(groups, shape)}
    return Batch(
        tuple(group.id for group in groups),
        tuple(torch.tensor(group.prompt, dtype=torch.int64) for group in groups),
        {**own, **known},
    )


def _per_token(groups: Sequence[Group], shape: tuple[int, int, int]) -> dict[str, Tensor]:
    """Return what is known of each token of every answer: float32 [B, K, T]; 0 elsewhere."""
    answers = [answer for group in groups for answer in group.answers if answer.tokens]
    names = set.intersection(*(set(answer.per_token) for answer in answers)) if answers else set()
    columns = {}
    for name in sorted(names):
        columns[name] = torch.zeros(shape)
        for b, group in enumerate(groups):
            for k, answer in enumerate(group.answers):
                values = answer.per_token.get(name, ())
                columns[name][b, k, : len(values)] = torch.tensor(values)
    return columns


def _logps(groups: Sequence[Group], of: str, shape: tuple[int, int]) -> Tensor:
    if groups and not any(of in a.logps for group in groups for a in group.answers):
        raise ColumnMissingError(f"no answer has a log-probability '{of}'")
    out = torch.zeros(shape, dtype=torch.float64)
    for b, group in enumerate(groups):
        for k, answer in enumerate(group.answers):
            out[b, k] = answer.logps.get(of, math.nan)
    return out
