"""The scorer: from a batch to the value that a scalar head gives each answer token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from ftkit.core.errors import user_error
from ftkit.model.layout import lay_out
from ftkit.model.reader import Reader, bare

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from ftkit.core.batch import Batch

HEADS = ("score", "classifier")
"""What transformers' classes for whole rows call their head."""


@dataclass
class Scorer(Reader):
    """A causal language model with a scalar head in the place of its own: a reward model, a critic.

    It is one of transformers' classes for sequence classification, which read the head at the last
    token of a row; here it is read at every token of every answer.
    """

    tail: ScalarTail | None = field(default=None, kw_only=True)
    """The head as a module, where an engine holds the weights."""

    def read(self, batch: Batch) -> Tensor:
        """Return the head's value at each token, once that has been read: float32 [B, K, T].

        0 where there is no token (``forward``).  Tokens that are not to be learnt (``batch.mask``)
        have a value too.
        """
        layout = lay_out(batch, whole=True)
        tail = self.tail or ScalarTail(head_of(bare(self.model)))
        return self.scatter(batch, layout, tail(self.hidden(batch, layout)))

    def modules(self) -> dict[str, nn.Module]:
        """Return the model, and its head as it is used here."""
        self.tail = self.tail or ScalarTail(head_of(bare(self.model)))
        return {**super().modules(), "tail": self.tail}

    def expected(self, batch: Batch) -> Tensor:
        """Return values, [B, K, T], by transformers' class: for each token a row that it ends."""
        layout = lay_out(batch, whole=True)
        _, k_max, t_max = batch.size
        rows = []
        for slot in layout.slot.tolist():
            b, k, t = slot // (k_max * t_max), slot // t_max % k_max, slot % t_max
            rows.append(torch.cat((batch.prompts[b], batch.tokens[b, k, : t + 1])))
        used = set(torch.cat(rows).tolist())
        pad = next(token for token in range(len(used) + 1) if token not in used)
        tokens = pad_sequence(rows, batch_first=True, padding_value=pad).to(self.device)
        with _padded_with(bare(self.model), pad):
            seen = (tokens != pad).long()
            out = self.model(input_ids=tokens, attention_mask=seen, use_cache=False)
        return self.scatter(batch, layout, out.logits[:, 0].float())

    def misfit(self) -> str | None:
        """Say why the head is more than one product with a vector; None if it is not."""
        head = head_of(bare(self.model))
        head = getattr(head, "original_module", head)  # peft's wrapper, where it is trained in full
        if type(head) is not torch.nn.Linear or head.out_features != 1:
            return f"its head is {head}, and not one linear output"
        return None

    def apart(self, found: Tensor, expected: Tensor) -> tuple[float, str]:
        """Return the mean difference of values in parts of their spread, and that in words."""
        gap = ((found - expected).abs().mean() / expected.std()).item()
        return gap, f"its scores differ by {gap:.2g} of their spread from those of its class"


class ScalarTail(nn.Module):
    """A scalar head, in float32; it shares its weights with the model (``head.Tail``)."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, head: nn.Module) -> None:
        """Take the weights of a linear layer with one output, or of peft's wrapper around it."""
        super().__init__()
        self.weight, self.bias = head.weight, head.bias  # type: ignore[assignment]

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the values of hidden states [M, d]: float32 [M]."""
        bias = None if self.bias is None else self.bias.float()
        return functional.linear(hidden.float(), self.weight.float(), bias).squeeze(-1)


def head_of(model: PreTrainedModel) -> nn.Linear:
    """Return the head of a model for whole rows, or peft's wrapper around it.

    Raises:
        UserError: if it has none that is known.
    """
    for name in HEADS:
        head = getattr(model, name, None)
        if head is not None:
            return head  # type: ignore[no-any-return]
    raise user_error(
        "model",
        f"{type(model).__name__} has no head called {' or '.join(HEADS)}",
        "take another architecture, such as qwen2, llama or mistral",
    )


@contextmanager
def _padded_with(model: PreTrainedModel, pad: int) -> Iterator[None]:
    """In it, the model takes the last token that is not ``pad`` for the end of a row."""
    configs = (model.config, model.config.get_text_config())
    kept = [config.pad_token_id for config in configs]
    for config in configs:
        config.pad_token_id = pad
    try:
        yield
    finally:
        for config, old in zip(configs, kept, strict=True):
            config.pad_token_id = old
