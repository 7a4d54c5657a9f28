"""The policy: from a batch to the log-probability of each answer token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from ftkit.model.head import Tail
from ftkit.model.layout import Layout, lay_out
from ftkit.model.reader import Reader, bare

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ftkit.core.batch import Batch

SHAPED = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""What configurations say of logits that are more than a product: it may not show in a probe."""


@dataclass
class Policy(Reader):
    """A causal language model and how batches go through it."""

    temperature: float = 1.0
    """Log-probabilities are those of softmax(logits / temperature) (LAWS T8)."""
    tail: Tail | None = field(default=None, kw_only=True)
    """The head as a module, where an engine holds the weights."""

    @contextmanager
    def at(self, temperature: float) -> Iterator[None]:
        """In it, log-probabilities are those at this temperature."""
        kept, self.temperature = self.temperature, temperature
        try:
            yield
        finally:
            self.temperature = kept

    def read(self, batch: Batch) -> Tensor:
        """Return log-probabilities, float32 [B, K, T], 0 where the mask is False (``forward``)."""
        layout = lay_out(batch)
        if self.way == "logits":
            flat = self._from_logits(batch, layout)
        else:
            hidden, target = self.hidden(batch, layout), layout.target.to(self.device)
            flat = self._tail(hidden, target, self.temperature)
        return self.scatter(batch, layout, flat)

    def expected(self, batch: Batch) -> Tensor:
        """Return log-probabilities, [B, K, T], from all logits of padded rows."""
        layout = lay_out(batch)
        return self.scatter(batch, layout, self._from_logits(batch, layout))

    def misfit(self) -> str | None:
        """Say why the head is more than one product with a matrix; None if it is not."""
        head = bare(self.model).get_output_embeddings()
        if type(head) is not torch.nn.Linear:
            return f"its head is a {type(head).__name__}"
        if getattr(head, "bias", None) is not None:
            return "its head has a bias"
        text = self.model.config.get_text_config()
        shaped = [name for name in SHAPED if getattr(text, name, None) not in (None, 1, 1.0)]
        return f"its configuration has {', '.join(shaped)}" if shaped else None

    def apart(self, found: Tensor, expected: Tensor) -> tuple[float, str]:
        """Return the mean difference of log-probabilities in nats, and that in words."""
        gap = (found - expected).abs().mean().item()
        return gap, f"log-probabilities differ by {gap:.2g} nats a token"

    def reduce_locally(self, batch: Batch, terms: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return the sum of terms that depend on one token each: a scalar to call ``backward`` on.

        Args:
            batch: what goes through the model, in one go.
            terms: (log-probabilities [m], their flat places [m] in [B, K, T]) -> scalar.
        """
        return self.placement.through(self._reduce_locally, batch, terms)

    def modules(self) -> dict[str, nn.Module]:
        """Return the model, and its head as it is used here."""
        if self.tail is None and self.way != "logits":
            self.tail = self._tail
        return {**super().modules(), **({"tail": self.tail} if self.tail else {})}

    def _reduce_locally(self, batch: Batch, terms: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        layout = lay_out(batch)
        target, slot = layout.target.to(self.device), layout.slot.to(self.device)
        if self.way == "logits":
            return terms(self._from_logits(batch, layout), slot)

        def of_tile(logp: Tensor, tile: slice) -> Tensor:
            return terms(logp, slot[tile])

        hidden = self.hidden(batch, layout)
        return self._tail(hidden, target, self.temperature, of_tile)  # type: ignore[no-any-return]

    @property
    def _tail(self) -> Tail:
        if self.tail is not None:
            return self.tail
        weight = bare(self.model).get_output_embeddings().weight
        assert isinstance(weight, torch.nn.Parameter)
        return Tail(weight)

    def _from_logits(self, batch: Batch, layout: Layout) -> Tensor:
        """The way that every architecture knows: [M], through the model's own head."""
        tokens, seen, row, place = self.rows(batch, layout)
        logits = self.model(input_ids=tokens, attention_mask=seen, use_cache=False).logits
        picked = logits[row, place].float() / self.temperature
        flat: Tensor = picked.log_softmax(-1).gather(1, layout.target.to(self.device)[:, None])
        return flat.squeeze(1)
