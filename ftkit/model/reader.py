"""How a batch goes through a transformer, whatever is then made of its hidden states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch

from ftkit.core.batch import collate
from ftkit.core.group import Answer, Group
from ftkit.core.part import Part, cut, groups_fit
from ftkit.parallel.placement import IN_PLACE, Placement

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ftkit.core.batch import Batch
    from ftkit.model.layout import Layout

IDLE = collate([Group("idle", (0,), (Answer((0,)),))])
"""What goes through a model for the sake of other ranks."""

Way = Literal["segments", "rows", "logits"]
"""How a batch goes through the model: one flat stream; padded rows, for architectures that streams
do not serve; or padded rows with all logits at once, where the head is more than a matrix."""


@dataclass
class Reader(ABC):
    """A transformer that reads from left to right, and how batches go through it."""

    model: PreTrainedModel
    """Or a PeftModel around one."""
    tokenizer: PreTrainedTokenizerBase
    micro_tokens: int
    """Tokens that go through at once."""
    way: Way = "segments"
    version: int = field(default=0, kw_only=True)
    """How many updates the weights have had."""
    placement: Placement = field(default=IN_PLACE, kw_only=True)
    """Where the weights lie."""

    def forward(self, batch: Batch) -> Tensor:
        """Return a value of each answer token, float32 [B, K, T], in one go.

        With a graph where gradients are on.  On ``device``.
        """
        return self.placement.through(self.read, batch)

    @abstractmethod
    def read(self, batch: Batch) -> Tensor:
        """Return what ``forward`` does; to be called where all weights are."""

    @abstractmethod
    def expected(self, batch: Batch) -> Tensor:
        """Return what ``forward`` shall give, [B, K, T], by the model's own class on padded rows.

        It is what faster ways are compared with.
        """

    @abstractmethod
    def misfit(self) -> str | None:
        """Say why the head is more than what ``forward`` computes itself; None if it is not."""

    @abstractmethod
    def apart(self, found: Tensor, expected: Tensor) -> tuple[float, str]:
        """Return how far values of the same n tokens are apart, [n] each, and that in words."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self.model.device
        return device

    def parts(self, batch: Batch, *, groups: bool = False) -> list[Part]:
        """Cut a batch into what goes through at once (``core.part.cut``)."""
        return list(cut(batch, self.micro_tokens, groups=groups, padded=self._padded))

    def passes(self, batch: Batch, *, groups: bool = False) -> Iterator[tuple[Part | None, Batch]]:
        """Yield each part of a batch, and what goes through the model for it.

        Where other ranks have more parts and all must make equally many passes, a batch of one
        token goes through for None, and counts for nothing.
        """
        parts = self.parts(batch, groups=groups)
        for i in range(self.placement.passes(len(parts))):
            part = parts[i] if i < len(parts) else None
            yield part, IDLE if part is None else part.of(batch)

    def modules(self) -> dict[str, nn.Module]:
        """Return all that holds weights, as it is called: what an engine must see to shard them."""
        return {"model": self.model}

    def groups_fit(self, batch: Batch) -> bool:
        """Whether each prompt can go through at once with all its answers."""
        return groups_fit(batch, self.micro_tokens, padded=self._padded)

    @property
    def _padded(self) -> bool:
        return self.way != "segments"

    @torch.no_grad()
    def without_graph(self, batch: Batch) -> Tensor:
        """Return what ``forward`` does, float32 [B, K, T], without a graph, in parts that fit."""
        out = torch.zeros(batch.size, dtype=torch.float32, device=self.device)
        for part, own in self.passes(batch):
            found = self.forward(own)
            if part is not None:
                part.put(out, found)
        return out

    def hidden(self, batch: Batch, layout: Layout) -> Tensor:
        """Return the hidden states at the layout's sources: [M, d]."""
        body = bare(self.model).base_model
        if self.way != "segments":
            tokens, seen, row, place = self.rows(batch, layout)
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

    def scatter(self, batch: Batch, layout: Layout, flat: Tensor) -> Tensor:
        """Put values of the layout's targets, [M], into their places in [B, K, T]; else 0."""
        out = torch.zeros(batch.tokens.numel(), dtype=torch.float32, device=self.device)
        return out.index_put((layout.slot.to(self.device),), flat).view(batch.size)

    def rows(self, batch: Batch, layout: Layout) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return padded tokens and their mask, [R, L], and the row and place of sources, [M]."""
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
        every = (tokens, seen, row_of[layout.slot // t_max], layout.positions[layout.source])
        tokens, seen, row, place = (x.to(self.device) for x in every)
        return tokens, seen, row, place


def bare(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model inside its adapters."""
    get = getattr(model, "get_base_model", None)
    return model if get is None else get()
