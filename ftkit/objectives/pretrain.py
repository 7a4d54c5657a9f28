"""Pretraining: next-token prediction on whole texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from ftkit.objectives.base import Kind, Loss, Objective, Unit

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.core.batch import Batch


class Pretrain(Objective):
    r"""Minimize  - mean over tokens j of log π(x_j | x_<j).

    The mean runs over the tokens of the global batch; the first token of a text has no predecessor
    and is not predicted (with a tokenizer that has a BOS token, that is the first one).

    Source: the seed, equations (autoreg) and (llm).
    """

    about: ClassVar[str] = "next-token prediction on whole texts"
    kind: ClassVar[Kind] = "documents"
    local: ClassVar[bool] = True

    name: Literal["pretrain"]

    @property
    def unit(self) -> Unit:
        """Every token counts alike."""
        return "token"

    def loss(self, logp: Tensor, batch: Batch) -> Loss:
        """Return the term of each token: [B, 1, T]."""
        return Loss((-logp).where(batch.mask, 0.0))
