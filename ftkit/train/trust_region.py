"""TRPO's step: as far as the trust region allows along the natural gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ftkit.core.errors import RunError
from ftkit.model.policy import Policy
from ftkit.objectives import TRPO
from ftkit.parallel.pieces import WEIGHT, Piece, Stored
from ftkit.train.curvature import Curvature, conjugate_gradient, joined
from ftkit.train.learner import Learner, Outcome
from ftkit.train.optimizer import sum_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.core.batch import Batch


@dataclass
class TrustRegion(Learner):
    """Learner and update in one (``Update``), for a step that needs the batch as well.

    Weights are float32, and there is neither a learning rate nor a state between steps.
    """

    _batch: Batch | None = None

    def __post_init__(self) -> None:
        """Take the parameters that require gradients."""
        named = self.policy.model.named_parameters()
        self._live = {name: p for name, p in named if p.requires_grad}

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The parameters that it changes, by name."""
        return self._live

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for weight in self._live.values():
            weight.grad = None

    def differentiate(self, batch: Batch) -> Outcome:
        """Add the gradient of -L, as every learner does, and keep the batch for the step."""
        self._batch = batch
        return super().differentiate(batch)

    def step(self, lr: float) -> dict[str, float]:
        """Move the weights to the best place within the trust region that is found on the line.

        Args:
            lr: not read.

        Returns:
            ``grad_norm``, of the gradient, which is not clipped; ``kl``, nats a token;
            ``step_fraction`` of the step that would reach δ if the KL were a parabola, 0 where none
            was taken; ``gain``, by how much L rose; ``cg_residual``.

        Raises:
            RunError: if the KL is larger than δ afterwards.
        """
        del lr
        method, policy = self.objective, self.policy
        assert isinstance(method, TRPO) and isinstance(policy, Policy) and self._batch is not None
        if self.world.size > 1:
            sum_gradients(list(self._live.values()), self.world)
        norm = float(self._gradient().norm())
        if not math.isfinite(norm):
            return {"grad_norm": norm}
        with policy.at(self.temperature):
            curvature = Curvature(policy, self._batch, self.world, self._live)
            direction, residual = self._direction(method, curvature)
            told = self._search(method, curvature, direction)
            self.zero_grad()
            self._batch = None
            kl = curvature.measure().kl
        if not kl <= method.delta:
            raise RunError(f"the KL after the step is {kl:g} nats a token, and δ {method.delta:g}")
        return {"grad_norm": norm, "kl": kl, **told, "cg_residual": residual}

    def pieces(self) -> dict[str, Piece]:
        """Return this rank's share of the weights; there is no other state."""
        return {
            name: Piece(
                tuple(self._live[name].shape), 0, {WEIGHT: self._live[name].detach().flatten()}
            )
            for name in self.world.mine(sorted(self._live))
        }

    @torch.no_grad()
    def load(self, stored: Stored) -> None:
        """Take weights back from a checkpoint."""
        for name, weight in self._live.items():
            weight.copy_(stored.whole(name))

    def _gradient(self) -> Tensor:
        return joined([weight.grad for weight in self._live.values()], self._live)

    def _direction(self, method: TRPO, curvature: Curvature) -> tuple[Tensor | None, float]:
        """Return the step at whose end the KL would be δ if it were a parabola, and the residual.

        None, where nothing is to be gained: all rewards of each group are alike.
        """
        uphill = -self._gradient()
        if not uphill.any():
            return None, 0.0

        def damped(v: Tensor) -> Tensor:
            return curvature.product(v) + method.damping * v

        x, residual = conjugate_gradient(damped, uphill, method.cg_steps, method.cg_tolerance)
        bend = x.dot(curvature.product(x))
        if not (bend > 0 and torch.isfinite(x).all()):
            return None, residual
        return (2 * method.delta / bend).sqrt() * x, residual

    def _search(
        self, method: TRPO, curvature: Curvature, direction: Tensor | None
    ) -> dict[str, float]:
        """Go along a direction as far as L rises and the KL is within δ, or stay."""
        start = {name: weight.detach().clone() for name, weight in self._live.items()}
        before = curvature.measure().logp
        if direction is not None:
            for t in range(method.tries):
                fraction = method.shrink**t
                self._go(start, fraction * direction)
                kl, logp = curvature.measure()
                gain = self._surrogate(logp, before) - self._surrogate(before, before)
                if kl <= method.delta and gain > 0:
                    return {"step_fraction": fraction, "gain": gain}
        self._go(start, None)
        return {"step_fraction": 0.0, "gain": 0.0}

    @torch.no_grad()
    def _go(self, start: Mapping[str, Tensor], step: Tensor | None) -> None:
        at = 0
        for name, weight in self._live.items():
            weight.copy_(start[name])  # back where it was, bit for bit
            if step is not None:
                weight.add_(step[at : at + weight.numel()].view(weight.shape))
                at += weight.numel()

    def _surrogate(self, logp: Tensor, old: Tensor) -> float:
        """Return L of log-probabilities [B, K, T]."""
        assert self._batch is not None
        loss = self.objective.loss(logp, self._batch.add(old=old))
        count = float(self._batch.count("token"))
        sums = torch.tensor([loss.terms.sum().item(), count], dtype=torch.float64)
        total, count = self.world.sum(sums)
        return -float(total / count.clamp(min=1))
