"""What a critic minimizes.  No method of its own: it learns beside a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ftkit.core.lazy import torch
from ftkit.core.reduce import masked_mean
from ftkit.objectives.base import Kind, Loss, Objective, Unit

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.core.batch import Batch


class Value(Objective):
    r"""Minimize  c · 1/2 mean over tokens of  max((V_t - R_t)^2, (clip(V_t) - R_t)^2).

    V_t is the value of the state in which token t was written, R_t its return, and clip(V) holds V
    within ε of the value that the critic gave when the answer was sampled: a value that has gone
    further has no gradient where going back would only raise the error.

    Source: Schulman et al., 2017 (arXiv 1707.06347), equation 9, for the squared error; the limit
    is that of their code.
    """

    about: ClassVar[str] = "a critic's values"
    kind: ClassVar[Kind] = "rollouts"
    reads: ClassVar[Literal["logp", "score"]] = "score"

    clip: float | None = Field(None, gt=0)
    """ε; null = no limit."""
    coef: float = Field(1.0, gt=0)
    """c."""

    @property
    def unit(self) -> Unit:
        """Every token counts alike."""
        return "token"

    def loss(self, logp: Tensor, batch: Batch) -> Loss:
        """Return the term of each token [B, K, T]; reads the columns ``value`` and ``returns``.

        Args:
            logp: float32 [B, K, T], V of the state in which each token was written.
            batch: the same B prompts and K answers.
        """
        v, returns, mask = logp.double(), of_tokens(batch, "returns"), batch.mask
        error, metrics = (v - returns).square(), {}
        if self.clip is not None:
            old = of_tokens(batch, "value")
            near = old + (v - old).clamp(-self.clip, self.clip)
            error = torch.maximum(error, (near - returns).square())
            metrics["value_clipped"] = masked_mean(((v - old).abs() > self.clip).double(), mask)
        return Loss(self.coef * error.where(mask, 0.0) / 2, metrics)


def of_tokens(batch: Batch, name: str) -> Tensor:
    """Return a column of what is known of each token: float64 [B, K, T].

    A batch without a single token has no such columns, and needs none.
    """
    return batch[name].double() if batch.size[2] else batch.mask.double()
