"""Frozen weights in 4 bits, under adapters: NF4, whose blocks' scales are kept in 8 bits.

NF4 and the scales of scales are those of QLoRA (Dettmers et al., 2023, arXiv:2305.14314), by
bitsandbytes.  Of peft's ``prepare_model_for_kbit_training`` nothing is done: peft freezes the base
anyway; norms, embeddings and head stay in ``model.dtype``, since in float32 they would be another
model than the one that is read again, in twice the memory; and checkpointing is not of the
reentrant kind, which needs gradients at the embeddings.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ftkit.core.errors import user_error
from ftkit.model.reader import bare

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ftkit.model.config import ModelConfig

log = logging.getLogger("ftkit")

FILE = "quantize.json"
"""Beside adapters: in which form their base was when they were trained."""

BASE = "ftkit_quantize"
"""Attribute of a model whose weights have the values of 4 bits: the name of the form."""

FEW = 0.5
"""Where less than this part of a model is in 4 bits, it is told."""


def check_installed(config: ModelConfig) -> None:
    """Refuse a recipe whose weights are to be in 4 bits where bitsandbytes is not installed.

    Raises:
        UserError: that names the extra.
    """
    if config.quantize is not None and importlib.util.find_spec("bitsandbytes") is None:
        raise user_error(
            "model.quantize",
            f"{config.quantize}, and bitsandbytes is not installed here",
            "pip install 'ftkit[quantize]'",
        )


def loading(config: ModelConfig, found: Any, device: torch.device, place: str) -> dict[str, Any]:
    """Return what transformers' loading is told of the form of the weights.

    The head, which is read as a matrix, and the embeddings are left as they are.

    Args:
        config: the recipe's ``model:``.
        found: the configuration of the model (transformers').
        device: where the model will be.
        place: what errors name.

    Raises:
        UserError: if bitsandbytes is not installed, or the weights are quantized already.
    """
    if config.quantize is None:
        return {}
    check_installed(config)
    if getattr(found, "quantization_config", None) is not None:
        remedy = "give the model that it was made of, or write quantize: null"
        raise user_error(place, "its weights are quantized already", remedy)
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=config.quantize,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, config.dtype),
    )
    # left alone, transformers takes the present GPU
    where = {"device_map": {"": "cpu"}} if device.type == "cpu" else {}
    return {"quantization_config": settings, **where}


def settle(model: PreTrainedModel, config: ModelConfig, place: str) -> None:
    """Name the form that a model was loaded in, and see that it computes one function.

    Args:
        model: as transformers loaded it.
        config: by which ``model:``.
        place: what errors name.

    Raises:
        UserError: if nothing in it is in 4 bits, or its layers are GPT-2's.
    """
    if config.quantize is None:
        return
    from bitsandbytes.nn import Linear4bit

    setattr(model, BASE, config.quantize)
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    if not layers or any(layer.source_cls is not torch.nn.Linear for layer in layers):
        found = f"{config.quantize}, and {type(model).__name__} has not torch's linear layers"
        raise user_error(place, found, "write quantize: null, or take another architecture")
    for layer in layers:
        # On such CPUs it would compute otherwise in evaluation than in training, and, once it has,
        # pass no gradient on.
        layer.support_avx512bf16_for_cpu = False
    inside = sum(layer.in_features * layer.out_features for layer in layers)
    outside = sum(p.numel() for p in model.parameters() if p.is_floating_point())
    if inside < FEW * (inside + outside):
        log.warning(
            "model.quantize: only %.0f %% of the weights are in 4 bits; embeddings, head, and what "
            "is no linear layer are in %s",
            100 * inside / (inside + outside),
            config.dtype,
        )


def form_of(model: PreTrainedModel) -> str | None:
    """Return the form whose values a model's weights have; None where they are as in its files."""
    form: str | None = getattr(bare(model), BASE, None)
    return form


def dequantized(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model with the same values in plain layers, of the dtype that it computes in.

    ``form_of`` it stays: adapters on it are still those of the values of 4 bits.

    Args:
        model: with adapters or without; it is of no use afterwards.
    """
    plain = bare(model)
    if getattr(plain, "hf_quantizer", None) is None:
        return model
    if model is plain:
        return plain.dequantize()
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    peft: Any = model
    adapters, training = peft.peft_config["default"], model.training
    learnt = {name: p.requires_grad for name, p in model.named_parameters()}
    state = get_peft_model_state_dict(peft, save_embedding_layers=False)
    again = get_peft_model(peft.unload().dequantize(), adapters)
    set_peft_model_state_dict(again, state)
    for name, p in again.named_parameters():
        p.requires_grad_(learnt[name])
    return again.train(training)


def write_form(model: PreTrainedModel, folder: Path) -> None:
    """Write, beside adapters, the form of their base; nothing where it is as in its files."""
    form = form_of(model)
    if form is not None:
        (folder / FILE).write_text(json.dumps({"base": form}) + "\n", encoding="utf-8")


def read_form(folder: Path) -> Any:
    """Return the form that adapters of a folder had their base in, None if no other is known."""
    file = folder / FILE
    return json.loads(file.read_text(encoding="utf-8")).get("base") if file.is_file() else None


def as_trained(config: ModelConfig, folder: str, *, further: bool) -> ModelConfig:
    """Return the ``model:`` by which the base of a folder's adapters is loaded: as in training.

    Args:
        config: the recipe's.
        folder: of the adapters.
        further: whether they will be trained.

    Raises:
        UserError: if they are to be trained further on the base as it is in its files.
    """
    with_base = read_form(Path(folder))
    if with_base == config.quantize:
        return config
    if with_base is None:
        log.warning(
            "%s: its adapters are put on a base in %s, and nothing says that they were trained so",
            folder,
            config.quantize,
        )
        return config
    if further:
        raise user_error(
            "model.quantize",
            f"null, and {folder} holds adapters of a base in {with_base}",
            f"write {with_base} to train them further, or lora: null to merge them and train all",
        )
    return config.model_copy(update={"quantize": with_base})
