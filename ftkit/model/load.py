"""Loading a policy or a scorer: weights, precision, adapters, and the way it is run."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import torch
from transformers.utils import logging as transformers_logging

from ftkit.core.errors import user_error
from ftkit.model.adapters import with_adapters
from ftkit.model.policy import Policy
from ftkit.model.scalar import Scorer
from ftkit.model.way import choose_way
from ftkit.model.weights import SCALAR, TOKENS, Kind, initial, start_head, stored

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
    model = _load(TOKENS, config, tokenizer, seed=seed, trainable=trainable, device=device)
    policy = Policy(model, tokenizer, micro_tokens)
    reason = choose_way(policy, config.attention)
    if reason is not None:
        log.warning("all logits of a part are held at once, which takes memory: %s", reason)
        policy.way = "logits"
    return policy


def load_scorer(
    config: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    micro_tokens: int,
    seed: int = 0,
    trainable: bool = True,
    device: torch.device | None = None,
) -> Scorer:
    """Load a reward model, or make one of a language model, and choose its way.

    The head of a language model is dropped and a scalar one put in its place, drawn as its
    architecture draws weights.  With ``model.lora`` it is trained in full, beside the adapters.

    Args:
        config: the recipe's ``model:``.
        tokenizer: its tokenizer, already loaded.
        micro_tokens: tokens that go through at once.
        seed: of random weights (``init``, new adapters, a new head).
        trainable: whether it will be trained; if not, it must have a head that was.
        device: where to; None = the GPU if there is one.

    Raises:
        UserError: if there is no such model, it does not fit the tokenizer or the recipe, or
            transformers has no class of its architecture with a scalar head.
    """
    model = _load(SCALAR, config, tokenizer, seed=seed, trainable=trainable, device=device)
    scorer = Scorer(model, tokenizer, micro_tokens)
    reason = choose_way(scorer, config.attention)
    if reason is not None:
        remedy = "take another architecture, such as qwen2, llama or mistral"
        raise user_error("model", f"it cannot be read as a reward model: {reason}", remedy)
    return scorer


def _load(
    kind: Kind,
    config: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    trainable: bool,
    device: torch.device | None,
) -> PreTrainedModel:
    """Everything but the way."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.manual_seed(seed)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.init is not None:
        model = initial(kind, config, tokenizer)
    else:
        model = stored(kind, config, trainable, device)
    if kind.scalar:
        start_head(model, seed)
    _check_vocabulary(model, tokenizer, config)
    switch_dropout_off(model)
    if trainable and config.lora is not None and not hasattr(model, "peft_config"):
        model = with_adapters(model, config, kind.task)
    if device.type == "cpu":
        # transformers' saving imports DeepSpeed, which otherwise warns that it found no GPU
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    model.to(device)
    if config.checkpointing and trainable:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train(trainable)


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
