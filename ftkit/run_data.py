"""What a run reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftkit.data.template import stop_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ftkit.data.dataset import Datasets
    from ftkit.data.order import Order
    from ftkit.data.pool import Pool


@dataclass(frozen=True)
class Data:
    """What a run reads, ready before any model is loaded."""

    tokenizer: PreTrainedTokenizerBase
    sets: Datasets
    order: Order
    rows: int | None
    """Rows that the run sees; None where it counts steps."""
    steps: int
    pool: Pool | None = None
    """The negatives, for dft."""
    held_out_pool: Pool | None = None
    """The held-out rows where they are a pool."""
    warnings: Sequence[str] = ()
    """What a person should know of the pool and the method."""

    @property
    def stop(self) -> list[int]:
        """Token ids at which an answer ends."""
        return stop_tokens(self.tokenizer)
