"""The critic: a value of each state, and the advantages that are made of values and rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from ftkit.core.advantages import gae
from ftkit.core.batch import collate
from ftkit.model.layout import Layout, lay_out
from ftkit.model.reader import Reader, bare
from ftkit.model.scalar import ScalarTail

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.core.batch import Batch
    from ftkit.core.group import Group
    from ftkit.objectives import PPO
    from ftkit.parallel.world import World


@dataclass
class Critic(Reader):
    """A scalar head on a transformer's hidden states: V of the states in which tokens are written.

    The state in which token t is written is the prompt and the tokens before it, and its hidden
    state is the one from which the policy's log-probability of token t comes: that of token t - 1,
    or of the prompt's last token.
    """

    head: nn.Linear | None = None
    """From a hidden state to one number; given by name, never None."""

    tail: ScalarTail | None = field(default=None, kw_only=True)
    """The head as a module, where an engine holds the weights."""

    def read(self, batch: Batch) -> Tensor:
        """Return V of the state in which each token was written: float32 [B, K, T].

        0 where ``batch.mask`` is False (``forward``).
        """
        layout = lay_out(batch)
        return self.scatter(batch, layout, self._values(batch, layout))

    @torch.no_grad()
    def after(self, batch: Batch) -> Tensor:
        """Return V of the state behind each answer: float32 [B, K], on the CPU.

        It is 0 where the answer ended, and the value at its last token where the length limit cut.
        """
        out = torch.zeros(batch.size[:2])
        rows = batch.truncated.any(-1).nonzero().flatten().tolist()
        own = batch.take(rows)
        read = torch.zeros(own.size)
        for part, piece in self.passes(own):
            found = self.placement.through(self._at_each, piece)
            if part is not None:
                part.put(read, found.cpu())
        if not rows:
            return out
        last = (own.length - 1).clamp(min=0)[..., None]
        out[rows] = read.gather(-1, last).squeeze(-1).where(own.truncated & (own.length > 0), 0.0)
        return out

    def expected(self, batch: Batch) -> Tensor:
        """Return values, [B, K, T], by padded rows."""
        layout, body = lay_out(batch), bare(self.model).base_model
        tokens, seen, row, place = self.rows(batch, layout)
        states = body(input_ids=tokens, attention_mask=seen, use_cache=False).last_hidden_state
        return self.scatter(batch, layout, self._of(states[row, place]))

    def misfit(self) -> str | None:
        """The head is one product with a vector, whatever that of the model is."""
        return None

    def apart(self, found: Tensor, expected: Tensor) -> tuple[float, str]:
        """Return the mean difference of values, and that in words."""
        gap = (found - expected).abs().mean().item()
        return gap, f"values differ by {gap:.2g}"

    def modules(self) -> dict[str, nn.Module]:
        """Return the model, and the head as it is used here."""
        self.tail = self._tail
        return {**super().modules(), "tail": self.tail}

    def _at_each(self, batch: Batch) -> Tensor:
        """Return V of the state behind each token: [B, K, T]."""
        layout = lay_out(batch, whole=True)
        return self.scatter(batch, layout, self._values(batch, layout))

    def _values(self, batch: Batch, layout: Layout) -> Tensor:
        return self._of(self.hidden(batch, layout))

    def _of(self, hidden: Tensor) -> Tensor:
        values: Tensor = self._tail(hidden)
        return values

    @property
    def _tail(self) -> ScalarTail:
        if self.tail is not None:
            return self.tail
        assert self.head is not None
        return ScalarTail(self.head)


@dataclass
class Advantages:
    """What is made of rewards and values once a rollout is judged (``sources.asking.finish``)."""

    critic: Critic
    method: PPO
    world: World

    def __call__(self, groups: Sequence[Group]) -> tuple[list[Group], dict[str, float]]:
        """Return groups whose answers know ``advantage`` and ``returns``, and what they come to.

        Args:
            groups: this rank's part of a rollout, with ``value`` of each token; with a KL in the
                reward also ``old`` and ``reference``.
        """
        batch = collate(groups)
        advantage = returns = value = torch.zeros(batch.size, dtype=torch.float64)
        after = self.critic.after(batch)  # on all ranks, also where there is nothing
        if batch.mask.any():
            value = batch["value"].double()
            advantage, returns = gae(
                self._rewards(batch),
                value,
                after,
                batch.mask,
                gamma=self.method.gamma,
                lam=self.method.lam,
            )
        center, spread = self._moments(advantage, batch.mask)
        middle, width = self._moments(returns, batch.mask)
        missed = self._moments(returns - value, batch.mask)[1]
        told = {
            "advantage": center,
            "advantage_deviation": spread,
            "value": self._moments(value, batch.mask)[0],
            "returns": middle,
            "explained_variance": 1 - (missed / width) ** 2 if width > 0 else 0.0,
        }
        advantage = (advantage - center) / (spread if spread > 0 else 1.0)
        return [_with(g, advantage[b], returns[b]) for b, g in enumerate(groups)], told

    def _rewards(self, batch: Batch) -> Tensor:
        """Return what each token earns: float64 [B, K, T]."""
        reward = torch.zeros(batch.size, dtype=torch.float64)
        if self.method.rewards_kl:
            far = batch["old"].double() - batch["reference"].double()
            reward -= self.method.beta * far.where(batch.mask, 0.0)
        last = (batch.mask * torch.arange(batch.size[2])).amax(-1, keepdim=True)
        earned = batch.reward.double().where(batch.mask.any(-1), 0.0)
        return reward.scatter_add_(-1, last, earned[..., None])

    def _moments(self, x: Tensor, mask: Tensor) -> tuple[float, float]:
        """Return mean and deviation over the tokens of all ranks."""
        picked = x[mask]
        sums = torch.tensor([float(len(picked)), picked.sum().item()], dtype=torch.float64)
        n, total = self.world.sum(sums).tolist()
        mean = total / max(n, 1.0)
        square = self.world.sum((picked - mean).square().sum()).item()
        return mean, (square / max(n, 1.0)) ** 0.5


def _with(group: Group, advantage: Tensor, returns: Tensor) -> Group:
    """Return a group whose answers know their advantages [K, T] and returns [K, T]."""
    answers = []
    for k, answer in enumerate(group.answers):
        n = len(answer.tokens)
        more = {
            "advantage": tuple(advantage[k, :n].tolist()),
            "returns": tuple(returns[k, :n].tolist()),
        }
        answers.append(replace(answer, per_token={**answer.per_token, **more}))
    return group.with_answers(*answers)
