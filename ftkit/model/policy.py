"""The policy: from a batch to the log-probability of each answer token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from ftkit.core.part import cut
from ftkit.model.head import Terms, log_probs, reduce_locally
from ftkit.model.layout import Layout, lay_out

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ftkit.core.batch import Batch

Way = Literal["segments", "rows"]
"""How a batch goes through the model: one flat stream, or padded rows
(``ModelConfig.attention``)."""


@dataclass
class Policy:
    """A causal language model and how batches go through it."""

    model: PreTrainedModel
    """Or a PeftModel around one."""
    tokenizer: PreTrainedTokenizerBase
    micro_tokens: int
    """Tokens that go through at once."""
    way: Way = "segments"
    temperature: float = 1.0
    """Log-probabilities are those of softmax(logits / temperature) (LAWS T8)."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self.model.device
        return device

    def forward(self, batch: Batch) -> Tensor:
        """Return log-probabilities, float32 [B, K, T], 0 where the mask is False; in one go.

        With a graph where gradients are on.  On ``device``.
        """
        layout = lay_out(batch)
        if self.way == "segments":
            on_device = layout.to(self.device)
            hidden = self._hidden(on_device)
            flat = log_probs(hidden, self._head(), on_device.target, self.temperature)
        else:
            flat = self._log_probs_by_rows(batch, layout)
        out = torch.zeros(batch.mask.numel(), dtype=torch.float32, device=self.device)
        return out.index_put((layout.slot.to(self.device),), flat).view(batch.size)

    def reduce_locally(self, batch: Batch, terms: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return the sum of terms that depend on one token each: a scalar to call ``backward`` on.

        Args:
            batch: what goes through the model, in one go.
            terms: (log-probabilities [m], their flat places [m] in [B, K, T]) -> scalar.
        """
        layout = lay_out(batch)
        slot = layout.slot.to(self.device)
        if self.way == "rows":
            return terms(self._log_probs_by_rows(batch, layout), slot)
        layout = layout.to(self.device)

        def tile_terms(logp: Tensor, tile: slice) -> Tensor:
            return terms(logp, slot[tile])

        tiled: Terms = tile_terms
        return reduce_locally(
            self._hidden(layout), self._head(), layout.target, tiled, self.temperature
        )

    @torch.no_grad()
    def log_probs(self, batch: Batch) -> Tensor:
        """Return log-probabilities, float32 [B, K, T], without a graph, in parts that fit."""
        out = torch.zeros(batch.size, dtype=torch.float32, device=self.device)
        for part in cut(batch, self.micro_tokens):
            part.put(out, self.forward(part.of(batch)))
        return out

    def _hidden(self, layout: Layout) -> Tensor:
        """Return the hidden states that predict something: [M, d]."""
        body = causal_lm(self.model).base_model
        states = body(
            input_ids=layout.tokens[None],
            position_ids=layout.positions[None],
            # a mask of four axes is handed through as it is, so that none is built; segments need
            # none
            attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self.device),
            use_cache=False,
            layout=layout,
        ).last_hidden_state[0]
        picked: Tensor = states.index_select(0, layout.source)
        return picked

    def _head(self) -> Tensor:
        weight = causal_lm(self.model).get_output_embeddings().weight
        assert isinstance(weight, torch.Tensor)
        return weight

    def _log_probs_by_rows(self, batch: Batch, layout: Layout) -> Tensor:
        """The way that every architecture knows: padded rows, full logits, its own masks."""
        k_max, t_max = batch.size[1:]
        rows = batch.present.nonzero().tolist() or [(0, 0)]
        lengths = [len(batch.prompts[b]) + int(batch.length[b, k]) for b, k in rows]
        tokens = torch.zeros(len(rows), max(lengths), dtype=torch.int64)
        seen = torch.zeros_like(tokens)
        for row, (b, k) in enumerate(rows):
            own = torch.cat((batch.prompts[b], batch.tokens[b, k, : batch.length[b, k]]))
            tokens[row, : len(own)], seen[row, : len(own)] = own, 1
        seen, tokens = seen.to(self.device), tokens.to(self.device)
        logits = self.model(input_ids=tokens, attention_mask=seen, use_cache=False).logits
        row_of = {b * k_max + k: row for row, (b, k) in enumerate(rows)}
        slots = layout.slot.tolist()
        picked_row = torch.tensor([row_of[slot // t_max] for slot in slots])
        prompt = torch.tensor([len(p) for p in batch.prompts])
        place = prompt[layout.slot // (k_max * t_max)] + layout.slot % t_max - 1
        picked = (
            logits[picked_row.to(self.device), place.to(self.device)].float() / self.temperature
        )
        flat: Tensor = picked.log_softmax(-1).gather(1, layout.target.to(self.device)[:, None])
        return flat.squeeze(1)


def causal_lm(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model inside its adapters."""
    get = getattr(model, "get_base_model", None)
    return model if get is None else get()
