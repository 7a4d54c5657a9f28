"""The recipe's ``model:``: which weights, in which precision, with which adapters."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ftkit.core.section import Section


class LoraConfig(Section):
    """Low-rank adapters (peft's LoRA); without dropout, so that log-probabilities are exact."""

    r: int = Field(16, gt=0)
    """The rank."""
    alpha: float = Field(32.0, gt=0)
    """The scale: the update is alpha / r times the product."""
    targets: Literal["all-linear"] | list[str] = "all-linear"
    """The layers that get adapters: `all-linear`, or names of modules."""
    rslora: bool = False
    """Scale by alpha / sqrt(r) instead."""


class ModelConfig(Section):
    """The policy."""

    path: str | None = None
    """A folder or a name of the Hugging Face hub; or `init`."""
    init: dict[str, Any] | None = None
    """Random weights: `architecture` (a Hugging Face model type, such as `qwen2`) and the values
    of its configuration; the vocabulary's size is the tokenizer's."""
    tokenizer: str | None = None
    """A folder or name; null = the model's own."""
    revision: str | None = None
    """The commit, branch or tag of a hub model."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The precision of the forward and backward passes; with bfloat16 the optimizer keeps float32
    masters."""
    attention: Literal["auto", "segments", "rows"] = "auto"
    """`segments`: one padding-free stream, each row attending to itself; `rows`: padded rows
    through the model's own attention, for architectures that segments do not know; `auto`:
    segments where a check at the start shows equal log-probabilities, else rows, said once."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    lora: LoraConfig | None = None
    """Train adapters instead of the weights."""
    quantize: Literal["nf4"] | None = None
    """`nf4`: the frozen weights of linear layers in 4 bits under adapters (QLoRA), computed with in
    `dtype`; needs `lora` and the extra `quantize`."""
    trust_remote_code: bool = False
    """Allow the model folder's own Python code to run."""
