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

    from ftkit.model.reader import Reader
    from ftkit.objectives import Loss, Objective
    from ftkit.parallel.world import World


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
        count = self.world.sum(torch.tensor(float(batch.count(self.objective.unit)))).item()
        sums = _Sums(batch.size[0])
        if self.objective.local:
            for part in self.policy.parts(batch):
                self._local(part.of(batch), max(count, 1.0), sums)
        elif self._separable(batch):
            for part in self.policy.parts(batch, groups=True):
                self._graph(part.of(batch), part.rows, max(count, 1.0), sums)
        else:
            self._by_log_probs_first(batch, max(count, 1.0), sums)
        return self._outcome(batch, sums)

    def _separable(self, batch: Batch) -> bool:
        """Whether the objective is a sum over parts that go through with all they depend on."""
        if self.objective.unit == "batch":
            return len(self.policy.parts(batch)) == 1
        return self.policy.groups_fit(batch)

    def _local(self, part: Batch, count: float, sums: _Sums) -> None:
        policy = self.policy
        assert isinstance(policy, Policy)
        on_device = part.to(policy.device)

        def terms(logp: Tensor, slot: Tensor) -> Tensor:
            loss = self.objective.loss(logp[:, None, None], on_device.at(slot))
            sums.add(loss)
            return loss.terms.sum() / count

        if part.mask.any():
            policy.reduce_locally(part, terms).backward()  # type: ignore[no-untyped-call]

    def _graph(self, part: Batch, rows: Sequence[int], count: float, sums: _Sums) -> None:
        logp = self.policy.forward(part)
        loss = self.objective.loss(logp, part.to(self.policy.device))
        sums.add(loss, rows)
        (loss.terms.sum() / count).backward()  # type: ignore[no-untyped-call]

    def _by_log_probs_first(self, batch: Batch, count: float, sums: _Sums) -> None:
        logp = self.policy.without_graph(batch).requires_grad_()
        loss = self.objective.loss(logp, batch.to(self.policy.device))
        sums.add(loss, range(batch.size[0]))
        (d_logp,) = torch.autograd.grad(loss.terms.sum() / count, logp)
        for part in self.policy.parts(batch):
            own = part.of(batch)
            self.policy.forward(own).backward(part.take(d_logp, own.size[2]))  # type: ignore[no-untyped-call]

    def _outcome(self, batch: Batch, sums: _Sums) -> Outcome:
        count = batch.count(self.objective.unit)
        tokens = sum(len(prompt) for prompt in batch.prompts) + int(batch.length.sum())
        sums.metrics["loss"] = Mean(sums.terms, torch.tensor(float(count)))
        sums.metrics["tokens"] = Mean(torch.tensor(float(tokens)), torch.ones(()))
        sums.metrics["trained"] = Mean(torch.tensor(float(batch.count("token"))), torch.ones(()))
        table = torch.tensor(
            [[float(m.total), float(m.count)] for m in sums.metrics.values()],
            dtype=torch.float64,
        )
        totals = dict(zip(sums.metrics, self.world.sum(table).tolist(), strict=True))
        means = {name: total / max(count, 1.0) for name, (total, count) in totals.items()}
        loss = means.pop("loss")
        return Outcome(
            loss,
            {n: v for n, v in means.items() if n not in {"tokens", "trained"}},
            tokens=round(totals["tokens"][0]),
            trained=round(totals["trained"][0]),
            carry=sums.carry,
        )


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
