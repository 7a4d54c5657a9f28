"""What a plan asks of a model: how many numbers, how many of them are trained, how wide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ftkit.model.policy import Policy
from ftkit.model.reader import bare
from ftkit.plan.live import OWN_PAGES
from ftkit.plan.spread import WIDE
from ftkit.samplers.network import FAMILY

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Facts:
    """Sizes of a model; tied weights count once."""

    weights: int
    """Bytes of parameters and buffers, as they lie while it trains."""
    numbers: int
    """Numbers in all parameters."""
    trained: int
    """Those that are trained."""
    narrow: int
    """Those that are trained and not float32, so that the optimizer keeps masters of them."""
    small: int
    """Those that are trained, in tensors of less than ``live.OWN_PAGES`` as float32."""
    element: int
    """Bytes of a number in the body."""
    table: int
    """Numbers in the embeddings where they are trained; else 0."""
    vocabulary: int
    """Rows of the head; 0 of a scalar one."""
    width: int
    """Of a hidden state."""
    head_trains: bool
    """Whether the head's gradient is wanted."""
    heads: int
    """Of attention."""
    layers: int
    streams: bool
    """Whether segments of one stream can serve it; else padded rows do."""
    logits: bool
    """Whether its head is more than a matrix, so that all logits are held at once."""
    shares: bool
    """Whether the embedded sampler has a loop of its own for it, in which answers share prompts."""


def facts_of(model: PreTrainedModel, attention: str) -> Facts:
    """Return the sizes of a skeleton.

    Args:
        model: adapters included.
        attention: the recipe's ``model.attention``.
    """
    parameters = list(model.parameters())
    trained = [weight for weight in parameters if weight.requires_grad]
    narrow = [weight for weight in trained if weight.dtype != torch.float32]
    plain = bare(model)
    head, table = plain.get_output_embeddings(), plain.get_input_embeddings().weight
    text = plain.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ()) - {"full_attention"}
    return Facts(
        weights=sum(x.numel() * x.element_size() for x in (*parameters, *model.buffers())),
        numbers=sum(weight.numel() for weight in parameters),
        trained=sum(weight.numel() for weight in trained),
        narrow=sum(weight.numel() for weight in narrow),
        small=sum(x.numel() for x in trained if x.numel() * WIDE < OWN_PAGES),
        element=table.element_size(),
        table=table.numel() if table.requires_grad else 0,
        vocabulary=0 if head is None else head.weight.shape[0],
        width=getattr(text, "hidden_size", table.shape[1]),
        head_trains=head is not None and head.weight.requires_grad,
        heads=getattr(text, "num_attention_heads", 1),
        layers=getattr(text, "num_hidden_layers", 1),
        streams=attention != "rows" and not kinds,
        logits=head is not None and _misfit(model) is not None,
        shares=plain.config.model_type in FAMILY and head is not None,
    )


def _misfit(model: PreTrainedModel) -> str | None:
    return Policy(model, None, 1).misfit()
