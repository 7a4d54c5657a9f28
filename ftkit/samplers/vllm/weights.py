"""The policy's weights as a sampler elsewhere takes them: under the names that checkpoints have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers.core_model_loading import revert_weight_conversion

from ftkit.core.errors import RunError, user_error
from ftkit.model.reader import bare

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from ftkit.model.policy import Policy

SHARD = 4 * 2**30
"""Bytes of a file of weights, about."""


def present_weights(policy: Policy) -> Mapping[str, Tensor]:
    """Return the weights by the names of a checkpoint, adapters added to what they adapt.

    Without copies where there are no adapters: they are to be read before the next update.
    """
    model = bare(policy.model)
    state = model.state_dict() if model is policy.model else _merged(model)
    found: Mapping[str, Tensor] = revert_weight_conversion(model, _once(model, state))
    return found


def _once(model: PreTrainedModel, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out what is another weight under a second name: whoever reads them ties them again."""
    second = getattr(model, "_tied_weights_keys", None) or ()
    first = {value.data_ptr() for name, value in state.items() if name not in second}
    return {
        name: value
        for name, value in state.items()
        if name not in second or value.data_ptr() not in first
    }


@torch.no_grad()
def _merged(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the weights of a model in adapters (peft), its own left as they are."""
    merged = {}
    adapters = list((getattr(model, "peft_config", None) or {}).values())
    if any(map(_is_odd, adapters)) or any(
        name.count(".base_layer.") > 1 for name in model.state_dict()
    ):
        raise user_error(
            "sample.engine",
            "vllm, and these adapters are more than LoRA on linear layers and embeddings",
            "merge them into their base first, or write engine: hf and vllm: null",
        )
    for name, value in model.state_dict().items():
        if ".lora_" in name or ".original_module." in name:
            continue
        plain = name.replace(".base_layer.", ".").replace(".modules_to_save.default.", ".")
        place, found, which = name.rpartition(".base_layer.")
        if found and which == "weight":
            layer = model.get_submodule(place)
            for adapter in layer.active_adapters:
                value = value + layer.get_delta_weight(adapter)  # noqa: PLW2901
        merged[plain] = value
    return merged


def _is_odd(adapters: Any) -> bool:
    """Whether adapters change more than a weight by a product."""
    odd = ("use_dora", "lora_bias", "trainable_token_indices", "target_parameters")
    return any(getattr(adapters, name, None) for name in odd)


def write_weights(weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write weights as safetensors into a new folder.

    Raises:
        RunError: if it cannot be written.
    """
    try:
        folder.mkdir(parents=True)
        for number, shard in enumerate(_shards(weights)):
            save_file(shard, folder / f"model-{number:05}.safetensors")
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"weights for vLLM's servers cannot be written to {folder} ({error}); "
            "sample.vllm.exchange names another folder"
        ) from error


def _shards(weights: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, value in weights.items():
        if shard and size + value.nbytes > SHARD:
            yield shard
            shard, size = {}, 0
        shard[name] = value.detach().cpu().contiguous()
        size += value.nbytes
    yield shard
