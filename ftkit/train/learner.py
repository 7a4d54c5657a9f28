"""The chain rule: the exact gradient of an objective's mean, however the batch is cut."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from ftkit.core.batch import Batch
from ftkit.core.reduce import Mean
from ftkit.model.policy import Policy

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.core.part import Part
    from ftkit.model.reader import Reader
    from ftkit.objectives import Loss, Objective
    from ftkit.parallel.world import World


LOGP = " logp"
"""Among columns of a batch, the policy's log-probabilities."""
TOKENS, TRAINED = " tokens", " trained"
"""Among metrics, what is only counted."""


@dataclass
class Outcome:
    """What one pass over a global batch found."""

    loss: float
    """The objective's value on the global batch (LAWS L7)."""
    metrics: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    """Tokens of prompts and answers, over all ranks."""
    trained: int = 0
    """Tokens that were learnt, over all ranks."""
    carry: Tensor | None = None
    """float64 [B], on the CPU: what to remember of each prompt of this rank's batch."""


@dataclass
class Learner:
    """A policy, what it shall minimize, and the ranks among which the batch is dealt."""

    policy: Reader
    objective: Objective
    world: World
    temperature: float = 1.0
    """Log-probabilities are those of softmax(logits / temperature): that of samples (LAWS T8)."""

    def differentiate(self, batch: Batch) -> Outcome:
        """Add the gradient of the objective's mean over the global batch to the parameters'.

        The result depends neither on how the batch is cut nor on the number of ranks (LAWS L1, L2).
        Where each token stands alone, it is differentiated in the head.  Where each prompt does,
        or all of the batch is one part, parts are summed.  Where they do not (a term over the whole
        batch; a group of answers larger than a part), log-probabilities are found first without a
        graph, the objective is differentiated by them on the whole batch, and the model by parts
        with those coefficients (LAWS T7).

        Args:
            batch: this rank's prompts, on the CPU.
        """
        if not isinstance(self.policy, Policy):
            return self._differentiate(batch)
        with self.policy.at(self.temperature):
            return self._differentiate(batch)

    def _differentiate(self, batch: Batch) -> Outcome:
        unfit = float(not self._separable(batch))
        count, unfit = self.world.sum(
            torch.tensor([float(batch.count(self.objective.unit)), unfit], dtype=torch.float64)
        ).tolist()
        sums = _Sums(batch.size[0])
        if self.objective.unit == "batch" and self.world.size > 1:
            self._over_all_ranks(batch, sums)
        elif self.objective.local:
            for part, own in self.policy.passes(batch):
                self._local(own, part, max(count, 1.0), sums)
        elif not unfit:
            for part, own in self.policy.passes(batch, groups=True):
                self._graph(own, part, max(count, 1.0), sums)
        else:
            self._by_log_probs_first(batch, max(count, 1.0), sums)
        return self._outcome(batch, sums)

    def _separable(self, batch: Batch) -> bool:
        """Whether the objective is a sum over parts that go through with all they depend on."""
        if self.objective.unit == "batch":
            return len(self.policy.parts(batch)) == 1
        return self.policy.groups_fit(batch)

    def _local(self, own: Batch, part: Part | None, count: float, sums: _Sums) -> None:
        policy = self.policy
        assert isinstance(policy, Policy)
        on_device = own.to(policy.device)

        def terms(logp: Tensor, slot: Tensor) -> Tensor:
            if part is None:
                return logp.sum() * 0.0
            loss = self.objective.loss(logp[:, None, None], on_device.at(slot))
            sums.add(loss)
            return loss.terms.sum() / count

        policy.placement.backward(policy.reduce_locally(own, terms))

    def _graph(self, own: Batch, part: Part | None, count: float, sums: _Sums) -> None:
        logp = self.policy.forward(own)
        if part is None:
            self.policy.placement.backward(logp.sum() * 0.0)
            return
        loss = self.objective.loss(logp, own.to(self.policy.device))
        sums.add(loss, part.rows)
        self.policy.placement.backward(loss.terms.sum() / count)

    def _by_log_probs_first(self, batch: Batch, count: float, sums: _Sums) -> None:
        logp = self.policy.without_graph(batch).requires_grad_()
        loss = self.objective.loss(logp, batch.to(self.policy.device))
        sums.add(loss, range(batch.size[0]))
        (d_logp,) = torch.autograd.grad(loss.terms.sum() / count, logp)
        self._by_coefficients(batch, d_logp)

    def _over_all_ranks(self, batch: Batch, sums: _Sums) -> None:
        """Differentiate what is a function of the global batch: on each rank, of all of it.

        Log-probabilities and columns are gathered, a few numbers a token; the gradient by them is
        the same on every rank, each of which differentiates the model by its own share.
        """
        mine = self.policy.without_graph(batch).cpu()
        told = {name: column for name, column in batch.columns.items() if name != "tokens"}
        shares = self.world.gather([{**told, LOGP: mine}])
        columns = joined_columns(shares)
        logp = columns.pop(LOGP).requires_grad_()
        columns["tokens"] = torch.zeros(logp.shape, dtype=torch.int64)
        loss = self.objective.loss(logp, Batch((), (), columns))
        (d_logp,) = torch.autograd.grad(loss.terms.sum(), logp)
        if self.world.leads:  # it is one loss, and counts once
            sums.add(loss)
        start = sum(len(share[LOGP]) for share in shares[: self.world.rank])
        b, k, t = batch.size
        own = d_logp[start : start + b, :k, :t]
        self._by_coefficients(batch, own.to(self.policy.device))

    def _by_coefficients(self, batch: Batch, d_logp: Tensor) -> None:
        """Differentiate the model, given the derivative by each log-probability: [B, K, T]."""
        for part, own in self.policy.passes(batch):
            logp = self.policy.forward(own)
            by = logp.new_zeros(()) if part is None else part.take(d_logp, own.size[2])
            self.policy.placement.backward((logp * by).sum())

    def _outcome(self, batch: Batch, sums: _Sums) -> Outcome:
        unit = self.objective.unit
        count = float(self.world.leads) if unit == "batch" else float(batch.count(unit))
        tokens = sum(len(prompt) for prompt in batch.prompts) + int(batch.length.sum())
        sums.metrics["loss"] = Mean(sums.terms, torch.tensor(count))
        found = {name: (float(m.total), float(m.count)) for name, m in sums.metrics.items()}
        found |= {TOKENS: (float(tokens), 1.0), TRAINED: (float(batch.count("token")), 1.0)}
        totals = self.world.totals(found)
        means = {name: total / max(count, 1.0) for name, (total, count) in totals.items()}
        return Outcome(
            means.pop("loss"),
            {n: v for n, v in means.items() if n not in {TOKENS, TRAINED}},
            tokens=round(totals[TOKENS][0]),
            trained=round(totals[TRAINED][0]),
            carry=sums.carry,
        )


def joined_columns(shares: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Put the columns of several batches, [B_i, K_i, T_i] or less, one below the other.

    K and T are those of the largest; what is added is 0, as is a column that a batch without any
    token lacks.
    """
    sizes = [share["mask"].shape for share in shares]
    whole = [sum(b for b, _, _ in sizes), *(max(size[axis] for size in sizes) for axis in (1, 2))]
    samples = {name: column for share in shares for name, column in share.items()}
    found = {n: column.new_zeros(whole[: column.dim()]) for n, column in samples.items()}
    at = 0
    for share, (b, _, _) in zip(shares, sizes, strict=True):
        for name, column in share.items():
            found[name][(slice(at, at + b), *map(slice, column.shape[1:]))] = column
        at += b
    return found


class _Sums:
    """Terms and metrics of all parts, as sums and counts, without graphs."""

    def __init__(self, rows: int) -> None:
        self.terms: Tensor = torch.zeros((), dtype=torch.float64)
        self.metrics: dict[str, Mean] = {}
        self.carry: Tensor | None = None
        self._rows = rows

    def add(self, loss: Loss, rows: Sequence[int] = ()) -> None:
        self.terms = self.terms.to(loss.terms.device) + loss.terms.detach().double().sum()
        self._join(loss.metrics)
        if loss.carry is not None:
            if self.carry is None:
                self.carry = torch.full((self._rows,), math.nan, dtype=torch.float64)
            self.carry[list(rows)] = loss.carry.detach().cpu()

    def _join(self, metrics: Mapping[str, Mean]) -> None:
        for name, mean in metrics.items():
            seen = self.metrics.get(name)
            self.metrics[name] = (
                mean if seen is None else Mean(seen.total + mean.total, seen.count + mean.count)
            )
