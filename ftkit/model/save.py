"""Writing a model that transformers loads and that stops where its template ends a turn."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from transformers import AutoTokenizer, GenerationConfig

from ftkit.core.errors import RunError
from ftkit.model.policy import causal_lm

if TYPE_CHECKING:
    from ftkit.model.policy import Policy


log = logging.getLogger("ftkit")

PROBE = "Is 12 + 345 = 357?\n  Yes: naïve café, 東京 🙂."
"""A text with digits, spaces, marks and letters that tokenizers treat each in their way."""


def save_model(policy: Policy, folder: Path, stop: Sequence[int]) -> None:
    """Write the policy in Hugging Face layout, tokenizer, template and generation config included.

    Adapters are written alone, beside the name of their base.  The folder is written aside, read
    back, and then put in the place of an older one of the same run.

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
    base = causal_lm(policy.model)
    tokenizer = policy.tokenizer
    generation = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=list(stop),
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stop[0],
    )
    adapters = policy.model is not base
    if adapters:
        policy.model.save_pretrained(aside, save_embedding_layers=False)
        (aside / "README.md").unlink(missing_ok=True)  # a card with nothing filled in
    else:
        base.generation_config = generation
        base.save_pretrained(aside)
    generation.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    if not _reloads(policy, aside):
        log.warning(
            "%s: AutoTokenizer reads this tokenizer otherwise than it was trained with, since "
            "transformers has rules of its own for %s models; load it with "
            "PreTrainedTokenizerFast, or train with a tokenizer made for them",
            folder,
            base.config.model_type,
        )
    if not adapters:
        _read_back(aside, base.state_dict())
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


def _reloads(policy: Policy, folder: Path) -> bool:
    """Whether transformers, left to itself, makes the same tokens of a text."""
    try:
        again = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, ImportError):  # a tokenizer that is code of its own
        return False
    return bool(again(PROBE).input_ids == policy.tokenizer(PROBE).input_ids)


def _read_back(folder: Path, state: dict[str, torch.Tensor]) -> None:
    """Compare every tensor on disk with the one in memory (LAWS L10)."""
    index = folder / "model.safetensors.index.json"
    names = (
        set(json.loads(index.read_text())["weight_map"].values())
        if index.is_file()
        else {"model.safetensors"}
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
