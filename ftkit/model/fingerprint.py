"""The name of a model's weights: what pools and cached log-probabilities belong to."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch

from ftkit.model.reader import bare

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from ftkit.model.reader import Reader

ORIGIN = "ftkit_origin"
"""Attribute of a model that adapters were merged into: what it was before, in full."""

CONSTANT = "quant_map"
"""How the names of tables end that say what numbers 4 or 8 bits stand for: the form's name is there
too, and layers may share them or not."""


def model_fingerprint(model: PreTrainedModel) -> str:
    """Return 32 hexadecimal digits that name a model's weights as they are now.

    They depend on names, shapes, dtypes and bytes alone, not on files, shards or the device.  Tied
    weights count once.  Adapters count where they change something: new ones do not, so that the
    name is that of the base.  A base in 4 bits has a name of its own: it is another model than the
    one that it was made of, and so may one be that another device has rounded to 4 bits.

    Args:
        model: a model, or a PeftModel around one.
    """
    tensors = _tensors(bare(model))
    whole = hashlib.sha256()
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        digests = pool.map(_digest, tensors.values())
        for (name, tensor), digest in zip(tensors.items(), digests, strict=True):
            whole.update(f"{name} {list(tensor.shape)} {tensor.dtype} {digest}\n".encode())
    return whole.hexdigest()[:32]


def reference_fingerprint(reader: Reader) -> str:
    """Return the name of the weights that a policy was loaded with; to be asked before training.

    It is the same whether adapters found on disk stay beside their base or were merged into it.
    """
    origin: str | None = getattr(reader.model, ORIGIN, None)
    return origin or model_fingerprint(reader.model)


def _tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return what is named: each weight and buffer once, under its name without adapters."""
    named: dict[str, Tensor] = {}
    adapters: dict[str, dict[str, Tensor]] = {}
    for name, tensor in model.state_dict().items():
        if name.endswith(CONSTANT):
            continue
        layer, lora, _ = name.partition(".lora_")
        if lora:
            adapters.setdefault(layer, {})[name] = tensor
        elif ".original_module." not in name:  # the head as it was before it was trained
            plain = name.replace(".base_layer.", ".").replace(".modules_to_save.default.", ".")
            named[plain] = tensor
    for layer, factors in adapters.items():
        if all(factor.any() for factor in factors.values()):  # else the product is 0
            scales = model.get_submodule(layer).scaling
            assert isinstance(scales, dict)
            named |= factors | {f"{layer}.scaling": torch.tensor(list(scales.values()))}
    once = {(t.data_ptr() or n): (n, t) for n, t in sorted(named.items(), reverse=True)}
    return dict(sorted(once.values(), key=lambda item: item[0]))


def _digest(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's bytes, which are read where they are if on the CPU."""
    raw = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return hashlib.sha256(raw.numpy().data).hexdigest()
