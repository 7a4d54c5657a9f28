"""A policy and its critic, learning from the same mini-batches: what a loop sees as one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ftkit.core.errors import RunError
from ftkit.objectives.value import Value
from ftkit.train.learner import Learner, Outcome

if TYPE_CHECKING:
    from ftkit.core.batch import Batch
    from ftkit.parallel.pieces import Piece, Stored
    from ftkit.train.optimizer import Update

OF_CRITIC = "critic."
"""What the names of the critic's weights begin with in a checkpoint."""


@dataclass
class ActorCritic(Learner):
    """A policy's learner that has the critic learn, too."""

    critic: Learner = field(kw_only=True)
    """Of the values; its objective is a ``Value``."""

    def differentiate(self, batch: Batch) -> Outcome:
        """Add both gradients; return the policy's outcome, with the critic's among its metrics.

        Raises:
            RunError: if the critic's loss is no number.
        """
        outcome = super().differentiate(batch)
        of_critic = self.critic.differentiate(batch)
        assert isinstance(self.critic.objective, Value)
        loss = of_critic.loss / self.critic.objective.coef
        if not math.isfinite(loss):
            raise RunError(f"the critic's loss is {loss}; no update was made: {REMEDY}")
        outcome.metrics |= {"value_loss": loss, **of_critic.metrics}
        return outcome


REMEDY = "lower its learning rate, or go back to an older checkpoint"


@dataclass
class BothOptimizers:
    """The updates of a policy and of a critic with a body of its own, as one (``Update``)."""

    policy: Update
    critic: Update
    critic_rate: float
    """The critic's learning rate, in parts of the policy's."""

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.policy.zero_grad()
        self.critic.zero_grad()

    def step(self, lr: float) -> dict[str, float]:
        """Clip each gradient by itself, and update both; the norm is the policy's.

        Raises:
            RunError: if the critic's is no number; the policy is not updated then.
        """
        of_critic = self.critic.step(lr * self.critic_rate)["grad_norm"]
        if not math.isfinite(of_critic):
            raise RunError(
                f"the critic's gradient has norm {of_critic}; no update was made: {REMEDY}"
            )
        return {**self.policy.step(lr), "critic_grad_norm": of_critic}

    def pieces(self) -> dict[str, Piece]:
        """Return this rank's part of both."""
        own = {OF_CRITIC + name: piece for name, piece in self.critic.pieces().items()}
        return {**self.policy.pieces(), **own}

    def load(self, stored: Stored) -> None:
        """Take both back from a checkpoint."""
        self.policy.load(stored)
        self.critic.load(stored.under(OF_CRITIC))
