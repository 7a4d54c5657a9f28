"""Loading the policy: weights or a configuration, precision, adapters, and the way it is run."""

from __future__ import annotations

import difflib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from ftkit.core.batch import collate
from ftkit.core.errors import Fault, UserError, user_error
from ftkit.core.group import Answer, Group
from ftkit.model import attention
from ftkit.model.policy import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from ftkit.model.config import ModelConfig

log = logging.getLogger("ftkit")

AGREEMENT = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Mean difference of log-probabilities, in nats, up to which two ways through a model are one."""


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
    attention.register()
    torch.manual_seed(seed)
    model = _initial(config, tokenizer) if config.init is not None else _stored(config, trainable)
    _check_vocabulary(model, tokenizer, config)
    switch_dropout_off(model)
    if trainable and config.lora is not None:
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
    policy.way = _choose_way(policy, config)
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
            full, attn_implementation=attention.NAME, dtype=getattr(torch, config.dtype)
        )
    except (ValueError, TypeError, ZeroDivisionError, RuntimeError) as error:
        raise user_error("model.init", f"{architecture} refuses it: {error}", "mend it") from error
    return model


def _stored(config: ModelConfig, trainable: bool) -> PreTrainedModel:
    """Weights of a folder or of the hub; a folder of adapters is its base with them."""
    path = str(config.path)
    if not (Path(path) / "adapter_config.json").is_file():
        return _pretrained(path, config)
    from peft import PeftConfig, PeftModel

    base = PeftConfig.from_pretrained(path).base_model_name_or_path
    model = PeftModel.from_pretrained(_pretrained(str(base), config), path)
    if not trainable:
        return model
    log.warning("%s holds adapters: they are merged into %s before training", path, base)
    return model.merge_and_unload().requires_grad_()  # peft had frozen the base


def _pretrained(path: str, config: ModelConfig) -> PreTrainedModel:
    options: dict[str, Any] = {
        "dtype": getattr(torch, config.dtype),
        "revision": config.revision or "main",
        "trust_remote_code": config.trust_remote_code,
    }
    if Path(path).is_dir() and not (Path(path) / "config.json").is_file():
        raise user_error(f"model.path {path}", "no config.json in it", "give a model's folder")
    try:
        implementation = (
            {} if config.attention == "rows" else {"attn_implementation": attention.NAME}
        )
        try:
            model, report = AutoModelForCausalLM.from_pretrained(
                path, **options, **implementation, output_loading_info=True
            )
        except ValueError as error:  # an architecture that lets no attention be exchanged
            if "attention" not in str(error):
                raise
            model, report = AutoModelForCausalLM.from_pretrained(
                path, **options, output_loading_info=True
            )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise user_error(
            f"model.path {path}",
            f"no model can be loaded from it: {reason}",
            "give a folder with config.json and safetensors, or a hub name within reach",
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise user_error(
            f"model.path {path}",
            f"{len(missing)} weights are missing, among them {missing[0]}",
            "the folder's configuration and its safetensors do not belong together",
        )
    return model


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


def switch_dropout_off(model: PreTrainedModel) -> None:
    """Make log-probabilities a function of the tokens, in training mode too."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout", "activation_dropout", "dropout_p"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


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


def _choose_way(policy: Policy, config: ModelConfig) -> Any:
    """Segments if they give the log-probabilities of padded rows on this very model, else rows."""
    if config.attention == "rows":
        return "rows"
    reason = _disagreement(policy)
    if reason is None:
        return "segments"
    if config.attention == "segments":
        raise user_error("model.attention", f"segments do not serve this model: {reason}", "auto")
    log.warning("attention goes by padded rows, which is slower: %s", reason)
    if policy.model.config._attn_implementation == attention.NAME:
        policy.model.set_attn_implementation("sdpa")
    return "rows"


@torch.no_grad()
def _disagreement(policy: Policy) -> str | None:
    """Say why segments do not serve a model; None if they do."""
    text: PreTrainedConfig = policy.model.config.get_text_config()
    if text._attn_implementation != attention.NAME:
        return "its attention cannot be exchanged"
    kinds = set(getattr(text, "layer_types", None) or ()) - {"full_attention"}
    if kinds:
        return f"it has layers of {', '.join(sorted(kinds))}"
    generator = torch.Generator().manual_seed(0)

    def some(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(text.vocab_size, (n,), generator=generator).tolist())

    batch = collate(
        [
            Group("a", some(5), (Answer(some(7)), Answer(some(3)), Answer(some(11)))),
            Group("b", some(4), (Answer(some(9)),)),
        ]
    )
    policy.way = "rows"
    try:
        expected = policy.forward(batch)
    except RuntimeError as error:
        raise user_error(
            "model", f"it cannot read a batch: {error}", "mend its configuration"
        ) from error
    policy.way = "segments"
    try:
        found = policy.forward(batch)
    except (attention.UnsupportedAttentionError, TypeError, AttributeError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    gap = ((found - expected).abs().sum() / batch.mask.sum()).item()
    if gap <= AGREEMENT[policy.model.dtype]:
        return None
    return f"log-probabilities differ by {gap:.2g} nats a token"
