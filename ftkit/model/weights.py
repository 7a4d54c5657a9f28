"""Weights: of a folder or the hub, with adapters or without, or random ones of a configuration."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

from ftkit.core.errors import Fault, UserError, user_error
from ftkit.model.adapters import check_same, put_on
from ftkit.model.fingerprint import ORIGIN, model_fingerprint
from ftkit.model.quantize import as_trained, dequantized, loading, settle
from ftkit.model.reader import bare
from ftkit.model.scalar import HEADS, head_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from ftkit.model.config import ModelConfig

log = logging.getLogger("ftkit")

WITH_HEAD = "ForSequenceClassification"
"""How the names of transformers' classes with a head for whole rows end."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What is made of the hidden states: transformers' class, and peft's name for it."""

    auto: Any
    task: str
    scalar: bool


TOKENS = Kind(AutoModelForCausalLM, "CAUSAL_LM", scalar=False)
SCALAR = Kind(AutoModelForSequenceClassification, "SEQ_CLS", scalar=True)


def initial(kind: Kind, config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Random weights of a configuration; a scalar head is left at zero (``start_head``)."""
    values = dict(config.init or {})
    architecture = str(values.pop("architecture", ""))
    if config.lora is not None:
        raise user_error(
            "model.lora",
            "adapters of random weights could not be loaded again without those weights",
            "train the weights first, then give their folder as model.path",
        )
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if architecture not in CONFIG_MAPPING_NAMES:
        near = difflib.get_close_matches(architecture, CONFIG_MAPPING_NAMES, 3)
        raise user_error(
            "model.init.architecture",
            f"'{architecture}' is no model type of transformers",
            f"did you mean {' or '.join(near)}?" if near else "write one such as qwen2 or llama",
        )
    _check_values(architecture, values)
    full = AutoConfig.for_model(
        architecture,
        **{
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            **values,
        },
    )
    fit(kind, full, "model.init.architecture")
    try:
        model: PreTrainedModel = kind.auto.from_config(full, dtype=getattr(torch, config.dtype))
    except (ValueError, TypeError, ZeroDivisionError, RuntimeError) as error:
        raise user_error("model.init", f"{architecture} refuses it: {error}", "mend it") from error
    if kind.scalar:
        _clear(model)
    return model


def _check_values(architecture: str, values: dict[str, Any]) -> None:
    defaults = AutoConfig.for_model(architecture)
    faults = []
    for key in values:
        if not hasattr(defaults, key):
            near = difflib.get_close_matches(key, vars(defaults), 1)
            remedy = f"did you mean '{near[0]}'?" if near else "see its configuration class"
            faults.append(Fault(f"model.init.{key}", f"no value of a {architecture} model", remedy))
    if faults:
        raise UserError(faults)


def stored(
    kind: Kind, config: ModelConfig, trainable: bool, device: torch.device
) -> PreTrainedModel:
    """Weights of a folder or of the hub; a folder of adapters is its base with them.

    For training they are merged into it, or, with ``model.lora``, trained further.  It is in 4
    bits where ``model.quantize`` says so, or where the adapters were trained on it in that form.
    """
    path = str(config.path)
    if path.startswith("~"):
        path = str(Path(path).expanduser())
    if (Path(path) / "adapter_config.json").is_file():
        model = _adapted(kind, path, config, trainable, device)
    else:
        model = _pretrained(kind, path, config, config.revision, device)
    if kind.scalar and not trainable and not head_of(bare(model)).weight.any():
        raise user_error(
            f"model.path {path}",
            "it holds a language model without a reward head",
            "give the folder of a reward model; ftkit reward trains one",
        )
    return model


def _adapted(
    kind: Kind, path: str, config: ModelConfig, trainable: bool, device: torch.device
) -> PreTrainedModel:
    from peft import PeftConfig

    with told(path):
        adapters = PeftConfig.from_pretrained(path)
    if adapters.task_type == SCALAR.task and not kind.scalar:
        raise _not_a_language_model(f"model.path {path}")
    base = str(adapters.base_model_name_or_path)
    further = trainable and config.lora is not None
    like = as_trained(config, path, further=further)
    model = _pretrained(kind, base, like, adapters.revision, device)
    if further:
        check_same(config, adapters, path)
    with told(path):
        model = put_on(model, adapters, path, kind.task, further=further)
    if further or not trainable:
        return model
    log.warning("%s holds adapters: they are merged into %s before training", path, base)
    origin = model_fingerprint(model)
    merged = dequantized(model).merge_and_unload().requires_grad_()  # peft had frozen the base
    setattr(merged, ORIGIN, origin)
    return merged


def _pretrained(
    kind: Kind, path: str, config: ModelConfig, revision: str | None, device: torch.device
) -> PreTrainedModel:
    if Path(path).is_dir() and not (Path(path) / "config.json").is_file():
        raise user_error(f"model.path {path}", "no config.json in it", "give a model's folder")
    options = {"revision": revision or "main", "trust_remote_code": config.trust_remote_code}
    with told(path):
        found = AutoConfig.from_pretrained(path, **options)
    fit(kind, found, f"model.path {path}")
    form = loading(config, found, device, f"model.path {path}")
    with told(path):
        model, report = kind.auto.from_pretrained(
            path,
            config=found,
            dtype=getattr(torch, config.dtype),
            output_loading_info=True,
            **options,
            **form,
        )
    settle(model, config, f"model.path {path}")
    missing = sorted(report["missing_keys"])
    heads = [key for key in missing if kind.scalar and key.split(".")[0] in HEADS]
    if len(heads) < len(missing):
        other = next(key for key in missing if key not in heads)
        raise user_error(
            f"model.path {path}",
            f"{len(missing) - len(heads)} weights are missing, among them {other}",
            "the folder's configuration and its safetensors do not belong together",
        )
    if heads:
        _clear(model)
    return model


def fit(kind: Kind, found: PretrainedConfig, place: str) -> None:
    """Refuse a configuration that is of another kind; say that the head shall have one output."""
    architectures = getattr(found, "architectures", None) or []
    classifier = any(name.endswith(WITH_HEAD) for name in architectures)
    if not kind.scalar:
        if classifier:
            raise _not_a_language_model(place)
        return
    own_code = kind.auto.__name__ in (getattr(found, "auto_map", None) or {})
    if type(found) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING and not own_code:
        raise user_error(
            place,
            f"transformers has no {found.model_type} model with a scalar head",
            "take one that has: qwen2, qwen3, llama, mistral, gemma2, phi3, gpt2",
        )
    if classifier and found.num_labels != 1:
        raise user_error(
            place, f"its head has {found.num_labels} outputs, and a reward is one", "take another"
        )
    found.num_labels = 1


def _not_a_language_model(place: str) -> UserError:
    return user_error(
        place,
        "it holds a reward model, which has no head for tokens",
        "give the language model that it was trained from",
    )


@torch.no_grad()
def _clear(model: PreTrainedModel) -> None:
    """Set a head that no file holds to zeros, which no trained one is: that marks it as new."""
    for weight in head_of(model).parameters():
        weight.zero_()


@torch.no_grad()
def start_head(model: PreTrainedModel, seed: int) -> None:
    """Draw a new scalar head as the architecture draws its weights; leave any other as it is.

    Left at zero, it would pass no gradient on at first.
    """
    weight = head_of(bare(model)).weight
    if not weight.any():
        spread = getattr(model.config.get_text_config(), "initializer_range", 0.02)
        generator = torch.Generator().manual_seed(seed)
        weight.copy_(torch.randn(weight.shape, generator=generator) * spread)


@contextmanager
def told(path: str) -> Iterator[None]:
    """Turn what goes wrong while files are read into an error that names the folder."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise user_error(
            f"model.path {path}",
            f"no model can be loaded from it: {reason}",
            "give a folder with config.json and safetensors, or a hub name within reach",
        ) from error
