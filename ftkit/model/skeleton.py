"""A model without its weights: what its architecture says, at no cost of memory."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoConfig

from ftkit.core.errors import user_error
from ftkit.model.adapters import with_adapters
from ftkit.model.reader import bare
from ftkit.model.weights import TOKENS, Kind, fit, initial, told

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ftkit.model.config import ModelConfig

REFUSALS = (ValueError, TypeError, AttributeError, KeyError, RuntimeError, ZeroDivisionError)
"""What architectures raise where a configuration is none of theirs."""


def skeleton(
    config: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    kind: Kind = TOKENS,
    *,
    adapters: bool = False,
) -> PreTrainedModel:
    """Return the model of a recipe with empty parameters (device ``meta``).

    Args:
        config: the recipe's ``model:``; of a folder of adapters it is the base.
        tokenizer: its tokenizer, already loaded.
        kind: whether it says tokens or a number.
        adapters: put those of ``model.lora`` on it, as for training; new ones, or, where the folder
            holds some, ones like these.

    Raises:
        UserError: if there is no such model.
    """
    with torch.device("meta"):
        if config.init is not None:
            return initial(kind, config, tokenizer)
        with told(str(config.path)):
            path, revision = _base_of(config)
            own_code = {"trust_remote_code": config.trust_remote_code}
            full = AutoConfig.from_pretrained(path, revision=revision, **own_code)
        fit(kind, full, f"model.path {path}")
        dtype = getattr(torch, config.dtype)
        try:
            model: PreTrainedModel = kind.auto.from_config(full, dtype=dtype, **own_code)
        except REFUSALS as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise user_error(
                f"model.path {path}",
                f"transformers makes no model of its {full.model_type} configuration: {reason}",
                "give the folder of a causal language model",
            ) from error
        return with_adapters(model, config, kind.task) if adapters and config.lora else model


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
