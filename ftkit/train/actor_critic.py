"""A policy and its critic, learning from the same mini-batches: what a loop sees as one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ftkit.core.errors import RunError
from ftkit.objectives.value import Value
from ftkit.train.learner import Learner, Outcome

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.core.batch import Batch
    from ftkit.train.optimizer import Optimizer

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
    """The optimizers of a policy and of a critic with a body of its own, as one (``Update``)."""

    policy: Optimizer
    critic: Optimizer
    critic_rate: float
    """The critic's learning rate, in parts of the policy's."""
    _norm: float = 0.0

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The weights of both, by name."""
        mine = {OF_CRITIC + name: weight for name, weight in self.critic.weights.items()}
        return {**self.policy.weights, **mine}

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.policy.zero_grad()
        self.critic.zero_grad()

    def clip(self) -> float:
        """Clip each gradient by itself; return the norm of the policy's.

        Raises:
            RunError: if the critic's is no number.
        """
        self._norm = self.critic.clip()
        if not math.isfinite(self._norm):
            raise RunError(
                f"the critic's gradient has norm {self._norm}; no update was made: {REMEDY}"
            )
        return self.policy.clip()

    def step(self, lr: float) -> dict[str, float]:
        """Update both."""
        told = self.policy.step(lr)
        self.critic.step(lr * self.critic_rate)
        return {**told, "critic_grad_norm": self._norm}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs besides the weights."""
        return {"policy": self.policy.state(), "critic": self.critic.state()}

    def load(self, weights: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        """Take weights and state back from a checkpoint."""
        own = {n.removeprefix(OF_CRITIC): w for n, w in weights.items() if n.startswith(OF_CRITIC)}
        self.policy.load(weights, state["policy"])
        self.critic.load(own, state["critic"])
