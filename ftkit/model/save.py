"""Writing models that transformers loads: policies that stop, reward models that score alike."""

from __future__ import annotations

import copy
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from transformers import AutoTokenizer, GenerationConfig

from ftkit.core.errors import RunError
from ftkit.model.quantize import write_form
from ftkit.model.reader import bare
from ftkit.model.scalar import Scorer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ftkit.model.reader import Reader


log = logging.getLogger("ftkit")

PROBE = "Is 12 + 345 = 357?\n  Yes: naïve café, 東京 🙂."
"""A text with digits, spaces, marks and letters that tokenizers treat each in their way."""

WEIGHTS = ("model.safetensors", "adapter_model.safetensors")
"""Where weights are, if they are in one file."""


def save_model(policy: Reader, folder: Path, stop: Sequence[int]) -> None:
    """Write a policy or a reward model in Hugging Face layout, tokenizer and template included.

    Adapters are written alone, beside the name of their base, and its form if that is in 4 bits;
    with them the head of a reward model.
    A policy gets a generation config; a reward model a token that pads rows and never ends one,
    since transformers takes the last token that is no padding for a row's end.  The folder is
    written aside, read back, and then put in the place of an older one of the same run.

    Args:
        policy: what to write.
        folder: where to.
        stop: token ids at which generation ends (``Template.stop_tokens``).

    Raises:
        RunError: if what is read back is not what was written.
    """
    aside = folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    model, tokenizer = bare(policy.model), policy.tokenizer
    if isinstance(policy, Scorer):
        tokenizer = _padded(policy, folder, stop)
    else:
        generation = GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=list(stop),
            pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stop[0],
        )
        if policy.model is model:
            model.generation_config = generation
        generation.save_pretrained(aside)
    state = _write_weights(policy, aside)
    tokenizer.save_pretrained(aside)
    if not _reloads(tokenizer, aside):
        log.warning(
            "%s: AutoTokenizer reads this tokenizer otherwise than it was trained with, since "
            "transformers has rules of its own for %s models; load it with "
            "PreTrainedTokenizerFast, or train with a tokenizer made for them",
            folder,
            model.config.model_type,
        )
    _read_back(aside, state)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


def _write_weights(policy: Reader, folder: Path) -> Mapping[str, torch.Tensor]:
    """Write the weights, or the adapters alone; return them under the names that files have."""
    if policy.model is bare(policy.model):
        policy.model.save_pretrained(folder)
        state: Mapping[str, torch.Tensor] = policy.model.state_dict()
        return state
    from peft import get_peft_model_state_dict

    policy.model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # a card with nothing filled in
    write_form(policy.model, folder)
    written: Mapping[str, torch.Tensor] = get_peft_model_state_dict(
        policy.model, save_embedding_layers=False
    )
    return written


def _padded(scorer: Scorer, folder: Path, stop: Sequence[int]) -> PreTrainedTokenizerBase:
    """Choose the token that pads rows, for the model's configuration and the tokenizer returned."""
    model, tokenizer = bare(scorer.model), copy.deepcopy(scorer.tokenizer)
    rows = model.get_input_embeddings().weight.shape[0]
    pad = padding_token(tokenizer, stop, rows)
    for config in (model.config, model.config.get_text_config()):
        config.pad_token_id = pad
    tokenizer.padding_side = "right"  # so that absolute positions begin with the row
    if pad is None:
        tokenizer.pad_token = None
        log.warning(
            "%s: score rows one at a time; every special token of the tokenizer ends answers, so "
            "none can pad them, and transformers refuses batches",
            folder,
        )
        return tokenizer
    if pad != tokenizer.pad_token_id:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
        log.info("%s: rows of rewards are padded with %s", folder, tokenizer.pad_token)
    if scorer.model is not model:
        log.info(
            "%s holds adapters and a head: load it with num_labels=1, pad_token_id=%d", folder, pad
        )
    return tokenizer


def padding_token(tokenizer: PreTrainedTokenizerBase, stop: Sequence[int], rows: int) -> int | None:
    """Return a token that pads rows and that no answer ends with; None if there is none.

    Args:
        tokenizer: whose special tokens; its own padding token, if that serves.
        stop: the tokens that end answers.
        rows: how many tokens the model knows.
    """
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    free = {*special, *tokenizer.all_special_ids} - {*stop, tokenizer.eos_token_id}
    free = {i for i in free if i < rows}
    if tokenizer.pad_token_id in free:
        own: int = tokenizer.pad_token_id
        return own

    def doubts(i: int) -> tuple[bool, ...]:
        name = str(tokenizer.convert_ids_to_tokens(i)).lower()
        unused = any(word in name for word in ("reserved", "unused"))
        bos, unk = i == tokenizer.bos_token_id, i == tokenizer.unk_token_id
        return "pad" not in name, not unused, not bos, unk

    return min(sorted(free), key=doubts, default=None)


def _reloads(tokenizer: PreTrainedTokenizerBase, folder: Path) -> bool:
    """Whether transformers, left to itself, makes the same tokens of a text."""
    try:
        again = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, ImportError):  # a tokenizer that is code of its own
        return False
    return bool(again(PROBE).input_ids == tokenizer(PROBE).input_ids)


def _read_back(folder: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Compare every tensor on disk with the one in memory (LAWS L10)."""
    index = folder / "model.safetensors.index.json"
    names = (
        set(json.loads(index.read_text())["weight_map"].values())
        if index.is_file()
        else {name for name in WEIGHTS if (folder / name).is_file()}
    )
    seen = 0
    for name in sorted(names):
        with safe_open(folder / name, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (no mapping, it has only keys())
                if key in state and not torch.equal(file.get_tensor(key), state[key].cpu()):
                    raise RunError(f"{folder / name}: '{key}' was not read back as it was written")
                seen += key in state
    if not seen:
        raise RunError(f"{folder}: no weight in it has a name of the model's")
