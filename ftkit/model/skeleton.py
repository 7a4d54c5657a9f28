"""A model without its weights: what its architecture says, at no cost of memory."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoConfig

from ftkit.model.reader import bare
from ftkit.model.weights import TOKENS, initial, told

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ftkit.model.config import ModelConfig


def skeleton(config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Return the language model of a recipe with empty parameters (device ``meta``).

    Of a folder of adapters it is the base.

    Raises:
        UserError: if there is no such model.
    """
    with torch.device("meta"):
        if config.init is not None:
            return initial(TOKENS, config, tokenizer)
        with told(str(config.path)):
            path, revision = _base_of(config)
            own_code = {"trust_remote_code": config.trust_remote_code}
            full = AutoConfig.from_pretrained(path, revision=revision, **own_code)
            dtype = getattr(torch, config.dtype)
            model: PreTrainedModel = TOKENS.auto.from_config(full, dtype=dtype, **own_code)
        return model


def described(model: PreTrainedModel, folder: Path) -> None:
    """Write ``config.json`` of a model into a folder."""
    plain = bare(model)
    config = copy.deepcopy(plain.config)
    config.architectures = [type(plain).__name__]
    config.save_pretrained(folder)


def _base_of(config: ModelConfig) -> tuple[str, str | None]:
    """Return the folder or name of the weights, and their revision."""
    path = str(Path(str(config.path)).expanduser()) if config.path else ""
    if not (Path(path) / "adapter_config.json").is_file():
        return path, config.revision
    from peft import PeftConfig

    adapters = PeftConfig.from_pretrained(path)
    return str(adapters.base_model_name_or_path), adapters.revision
