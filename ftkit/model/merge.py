"""Adapters merged into their base, weights rounded, and how far that moves what a model says."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ftkit.model.quantize import dequantized
from ftkit.model.reader import bare
from ftkit.model.scalar import Scorer, head_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ftkit.model.reader import Reader

OF_ADAPTERS = (".lora_", ".modules_to_save.")
"""What names of weights hold that adapters have and their base has not."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two models are apart: absolute differences of logits, or of rewards."""

    largest: float
    mean: float

    def to_json(self) -> dict[str, float]:
        """Return both figures."""
        return {"largest": self.largest, "mean": self.mean}


def has_adapters(reader: Reader) -> bool:
    """Whether a model is a base with adapters beside it."""
    return hasattr(reader.model, "disable_adapter")


def in_float32(reader: Reader) -> None:
    """Compute in float32 from here on, with the weights as they are: dropout is off."""
    reader.model = dequantized(reader.model)
    reader.model.float().eval()


def merge(reader: Reader) -> None:
    """Add adapters to the weights of their base, in the precision that these have.

    What was trained in full beside adapters, as the head of a reward model, takes its place.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tied weights: what merging changed is measured
        reader.model = reader.model.merge_and_unload()


@torch.no_grad()
def round_to(reader: Reader, dtype: torch.dtype, *, adapters: bool = False) -> None:
    """Round weights to the nearest values that a type has, and keep them in it.

    Buffers, such as the frequencies of positions, stay as they are.

    Args:
        reader: whose weights.
        dtype: float32 or bfloat16.
        adapters: only those of its adapters.
    """
    for weight in _weights(reader.model, adapters=adapters):
        weight.data = weight.data.to(dtype)


def _weights(model: nn.Module, *, adapters: bool) -> Iterator[Tensor]:
    for name, weight in model.named_parameters():
        if not adapters or any(part in name for part in OF_ADAPTERS):
            yield weight


@torch.no_grad()
def outputs(reader: Reader, rows: Sequence[Tensor]) -> list[Tensor]:
    """Return what a model says after each token of some rows, by its own class, on the CPU.

    Args:
        reader: a model in float32.
        rows: int64 [L] each.

    Returns:
        float32 [L, V] for each row: logits; of a reward model [L, 1], the value of its head.
    """
    model = reader.model
    found = []
    for row in rows:
        tokens = row[None].to(reader.device)
        if isinstance(reader, Scorer):
            hidden = bare(model).base_model(input_ids=tokens, use_cache=False).last_hidden_state
            said = head_of(bare(model))(hidden)
        else:
            said = model(input_ids=tokens, use_cache=False).logits
        found.append(said[0].float().cpu())
    return found


def apart(found: Sequence[Tensor], expected: Sequence[Tensor]) -> Difference:
    """Return how far two models are apart on the same rows (``outputs``)."""
    gaps = [(a - b).abs().double() for a, b in zip(found, expected, strict=True)]
    count = sum(gap.numel() for gap in gaps)
    largest = max(float(gap.max()) for gap in gaps)
    return Difference(largest, float(sum(gap.sum() for gap in gaps)) / count)


def spread(found: Sequence[Tensor]) -> float:
    """Return the standard deviation of what a model says: the measure of what is far."""
    return float(torch.cat([each.flatten() for each in found]).double().std())
