"""Loading the policy: weights or a configuration, precision, adapters, and the way it is run."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from ftkit.core.errors import Fault, UserError, user_error
from ftkit.model.policy import Policy
from ftkit.model.way import choose_way

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ftkit.model.config import ModelConfig

log = logging.getLogger("ftkit")


def load_policy(
    config: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    micro_tokens: int,
    seed: int = 0,
    trainable: bool = True,
    device: torch.device | None = None,
) -> Policy:
    """Load the policy and choose the way that batches go through it.

    Dropout is off everywhere, in training too: a log-probability is a function (LAWS L4).

    Args:
        config: the recipe's ``model:``.
        tokenizer: its tokenizer, already loaded.
        micro_tokens: tokens that go through at once.
        seed: of random weights (``init``, new adapters).
        trainable: whether it will be trained; if not, adapters found on disk stay unmerged.
        device: where to; None = the GPU if there is one.

    Raises:
        UserError: if there is no such model, or it does not fit the tokenizer or the recipe.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.manual_seed(seed)
    model = _initial(config, tokenizer) if config.init is not None else _stored(config, trainable)
    _check_vocabulary(model, tokenizer, config)
    switch_dropout_off(model)
    if trainable and config.lora is not None and not hasattr(model, "peft_config"):
        model = _with_adapters(model, config)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        # transformers' saving imports DeepSpeed, which otherwise warns that it found no GPU
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    model.to(device)
    if config.checkpointing and trainable:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train(trainable)
    policy = Policy(model, tokenizer, micro_tokens)
    choose_way(policy, config.attention)
    return policy


def _initial(config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Random weights of a configuration."""
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
    defaults = AutoConfig.for_model(architecture)
    faults = []
    for key in values:
        if not hasattr(defaults, key):
            near = difflib.get_close_matches(key, vars(defaults), 1)
            remedy = f"did you mean '{near[0]}'?" if near else "see its configuration class"
            faults.append(Fault(f"model.init.{key}", f"no value of a {architecture} model", remedy))
    if faults:
        raise UserError(faults)
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
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            full, dtype=getattr(torch, config.dtype)
        )
    except (ValueError, TypeError, ZeroDivisionError, RuntimeError) as error:
        raise user_error("model.init", f"{architecture} refuses it: {error}", "mend it") from error
    return model


def _stored(config: ModelConfig, trainable: bool) -> PreTrainedModel:
    """Weights of a folder or of the hub; a folder of adapters is its base with them.

    For training they are merged into it, or, with ``model.lora``, trained further.
    """
    path = str(config.path)
    if path.startswith("~"):
        path = str(Path(path).expanduser())
    if not (Path(path) / "adapter_config.json").is_file():
        return _pretrained(path, config, config.revision)
    from peft import PeftConfig, PeftModel

    with _told(path):
        adapters = PeftConfig.from_pretrained(path)
    base = str(adapters.base_model_name_or_path)
    model = _pretrained(base, config, adapters.revision)
    further = trainable and config.lora is not None
    if further:
        _check_same_adapters(config, adapters, path)
    with _told(path):
        model = PeftModel.from_pretrained(model, path, is_trainable=further)
    if further or not trainable:
        return model
    log.warning("%s holds adapters: they are merged into %s before training", path, base)
    return model.merge_and_unload().requires_grad_()  # peft had frozen the base


def _check_same_adapters(config: ModelConfig, adapters: Any, path: str) -> None:
    lora = config.lora
    assert lora is not None
    mine = {"r": lora.r, "alpha": lora.alpha, "rslora": lora.rslora}
    its = {"r": adapters.r, "alpha": adapters.lora_alpha, "rslora": adapters.use_rslora}
    faults = [
        Fault(
            f"model.lora.{key}",
            f"is {mine[key]}, and {path} holds adapters with {its[key]}",
            f"write {its[key]} to train them further, or lora: null to merge them and train all",
        )
        for key in mine
        if mine[key] != its[key]
    ]
    if faults:
        raise UserError(faults)


def _pretrained(path: str, config: ModelConfig, revision: str | None) -> PreTrainedModel:
    if Path(path).is_dir() and not (Path(path) / "config.json").is_file():
        raise user_error(f"model.path {path}", "no config.json in it", "give a model's folder")
    with _told(path):
        model, report = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=getattr(torch, config.dtype),
            revision=revision or "main",
            trust_remote_code=config.trust_remote_code,
            output_loading_info=True,
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise user_error(
            f"model.path {path}",
            f"{len(missing)} weights are missing, among them {missing[0]}",
            "the folder's configuration and its safetensors do not belong together",
        )
    return model


@contextmanager
def _told(path: str) -> Iterator[None]:
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


def _check_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: ModelConfig
) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise user_error(
            f"model.tokenizer {config.tokenizer or config.path}",
            f"it has {len(tokenizer)} tokens, the model only {rows} embeddings",
            "give the tokenizer that belongs to the model",
        )


def check_positions(model: PreTrainedModel, longest: int) -> None:
    """Refuse rows that are longer than a model can read.

    Rotary embeddings go on past the length that a model was trained at, with less and less sense:
    that is said.  Learned ones end.

    Raises:
        UserError: if there is no embedding for the last positions.
    """
    config = model.config.get_text_config()
    known = getattr(config, "max_position_embeddings", None)
    if known is None or longest <= known:
        return
    found = f"rows have up to {longest} tokens, and the model knows {known} positions"
    if getattr(config, "rope_parameters", None):
        log.warning("%s: it extrapolates", found)
        return
    remedy = f"write data.max_length: {known} and overlong: drop or truncate"
    raise user_error("data.max_length", found, remedy)


def switch_dropout_off(model: PreTrainedModel) -> None:
    """Make log-probabilities a function of the tokens, in training mode too."""
    for holder in (model.config, *model.modules()):
        if isinstance(holder, torch.nn.Dropout):
            holder.p = 0.0
        for name, value in list(vars(holder).items()):
            if isinstance(value, float) and "drop" in name:
                setattr(holder, name, 0.0)


def _with_adapters(model: PreTrainedModel, config: ModelConfig) -> PreTrainedModel:
    from peft import LoraConfig, TaskType, get_peft_model

    lora = config.lora
    assert lora is not None
    try:
        return get_peft_model(
            model,
            LoraConfig(
                r=lora.r,
                lora_alpha=lora.alpha,
                target_modules=lora.targets,
                lora_dropout=0.0,
                use_rslora=lora.rslora,
                task_type=TaskType.CAUSAL_LM,
            ),
        )
    except ValueError as error:
        raise user_error(
            "model.lora.targets", str(error), "name layers that the model has"
        ) from error
