"""The policy: from a batch to the log-probability of each answer token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from ftkit.core.part import Part, cut, groups_fit
from ftkit.model.head import log_probs, reduce_locally
from ftkit.model.layout import Layout, lay_out

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ftkit.core.batch import Batch

Way = Literal["segments", "rows", "logits"]
"""How a batch goes through the model: one flat stream; padded rows, for architectures that streams
do not serve; or padded rows with all logits at once, where the head is more than a matrix."""


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
        target, slot = layout.target.to(self.device), layout.slot.to(self.device)
        if self.way == "logits":
            flat = self._from_logits(batch, layout)
        else:
            hidden = self._hidden(batch, layout)
            flat = log_probs(hidden, self._head(), target, self.temperature)
        out = torch.zeros(batch.mask.numel(), dtype=torch.float32, device=self.device)
        return out.index_put((slot,), flat).view(batch.size)

    def reduce_locally(self, batch: Batch, terms: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return the sum of terms that depend on one token each: a scalar to call ``backward`` on.

        Args:
            batch: what goes through the model, in one go.
            terms: (log-probabilities [m], their flat places [m] in [B, K, T]) -> scalar.
        """
        layout = lay_out(batch)
        target, slot = layout.target.to(self.device), layout.slot.to(self.device)
        if self.way == "logits":
            return terms(self._from_logits(batch, layout), slot)

        def of_tile(logp: Tensor, tile: slice) -> Tensor:
            return terms(logp, slot[tile])

        hidden = self._hidden(batch, layout)
        return reduce_locally(hidden, self._head(), target, of_tile, self.temperature)

    def parts(self, batch: Batch, *, groups: bool = False) -> list[Part]:
        """Cut a batch into what goes through at once (``core.part.cut``)."""
        return list(cut(batch, self.micro_tokens, groups=groups, padded=self._padded))

    def groups_fit(self, batch: Batch) -> bool:
        """Whether each prompt can go through at once with all its answers."""
        return groups_fit(batch, self.micro_tokens, padded=self._padded)

    @property
    def _padded(self) -> bool:
        return self.way != "segments"

    @torch.no_grad()
    def log_probs(self, batch: Batch) -> Tensor:
        """Return log-probabilities, float32 [B, K, T], without a graph, in parts that fit."""
        out = torch.zeros(batch.size, dtype=torch.float32, device=self.device)
        for part in self.parts(batch):
            part.put(out, self.forward(part.of(batch)))
        return out

    def _hidden(self, batch: Batch, layout: Layout) -> Tensor:
        """Return the hidden states that predict something: [M, d]."""
        body = causal_lm(self.model).base_model
        if self.way == "rows":
            tokens, seen, row, place = self._rows(batch, layout)
            out = body(input_ids=tokens, attention_mask=seen, use_cache=False)
            padded: Tensor = out.last_hidden_state
            return padded[row, place]
        layout = layout.to(self.device)
        states: Tensor = body(
            input_ids=layout.tokens[None],
            position_ids=layout.positions[None],
            # a mask of four axes is handed through as it is, so that none is built
            attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self.device),
            use_cache=False,
            layout=layout,
        ).last_hidden_state[0]
        return states.index_select(0, layout.source)

    def _head(self) -> Tensor:
        weight = causal_lm(self.model).get_output_embeddings().weight
        assert isinstance(weight, torch.Tensor)
        return weight

    def _from_logits(self, batch: Batch, layout: Layout) -> Tensor:
        """The way that every architecture knows: [M], through the model's own head."""
        tokens, seen, row, place = self._rows(batch, layout)
        logits = self.model(input_ids=tokens, attention_mask=seen, use_cache=False).logits
        picked = logits[row, place].float() / self.temperature
        flat: Tensor = picked.log_softmax(-1).gather(1, layout.target.to(self.device)[:, None])
        return flat.squeeze(1)

    def _rows(self, batch: Batch, layout: Layout) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return padded tokens and their mask, [R, L], and where each target is predicted, [M]."""
        k_max, t_max = batch.size[1:]
        pairs = batch.present.nonzero().tolist() or [[0, 0]]
        lengths = [len(batch.prompts[b]) + int(batch.length[b, k]) for b, k in pairs]
        tokens = torch.zeros(len(pairs), max(lengths), dtype=torch.int64)
        seen = torch.zeros_like(tokens)
        row_of = torch.zeros(batch.size[0] * k_max, dtype=torch.int64)
        for at, (b, k) in enumerate(pairs):
            own = torch.cat((batch.prompts[b], batch.tokens[b, k, : batch.length[b, k]]))
            tokens[at, : len(own)], seen[at, : len(own)] = own, 1
            row_of[b * k_max + k] = at
        prompt = torch.tensor([len(p) for p in batch.prompts])
        place = prompt[layout.slot // (k_max * t_max)] + layout.slot % t_max - 1
        row = row_of[layout.slot // t_max]
        every = (tokens, seen, row, place)
        tokens, seen, row, place = (x.to(self.device) for x in every)
        return tokens, seen, row, place


def causal_lm(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model inside its adapters."""
    get = getattr(model, "get_base_model", None)
    return model if get is None else get()
