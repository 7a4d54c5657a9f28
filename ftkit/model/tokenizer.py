"""The tokenizer: loading one and making sure that it does what its file says, or training one."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer
from transformers.utils import cached_file

from ftkit.core.errors import user_error
from ftkit.core.fingerprint import tokenizer_fingerprint
from ftkit.core.templates import CHATML, CHATML_TOKENS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ftkit.model.config import ModelConfig

__all__ = ["load_tokenizer", "tokenizer_fingerprint", "train_tokenizer"]

log = logging.getLogger("ftkit")

PROBE = "Tom's 3 bags hold 128 apples; he pays $4.50.\n  So: 12 + 7 = 19, naïve?\n\n#### 19"
"""Words, numbers, signs, white space and characters of several bytes."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
    "tokenizer_config.json",
)
"""A folder with none of these holds no tokenizer."""

NAMING = ("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")
"""Files that may name tokens beside tokenizer.json."""

EOS, PAD = "<|endoftext|>", "<|pad|>"
SPECIAL = (EOS, *CHATML_TOKENS, PAD)
"""Special tokens of a trained tokenizer, which take the first ids."""

BYTES = 256


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model section.

    Where transformers builds other rules than tokenizer.json holds, as it does for model types with
    a tokenizer class of their own, the file's are taken.

    Args:
        config: ``tokenizer`` goes before ``path``.

    Raises:
        UserError: if there is none, it has no EOS token, or it makes nothing of a text.
    """
    name = config.tokenizer or config.path
    if name is None:
        raise user_error(
            "model.tokenizer",
            "a model from random weights has no tokenizer of its own",
            "name a folder or a model of the hub",
        )
    place = "model.tokenizer" if config.tokenizer else "model.path"
    revision = None if config.tokenizer else config.revision
    name = _checked(name, place)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=revision, trust_remote_code=config.trust_remote_code
        )
        file = cached_file(
            name, "tokenizer.json", revision=revision, _raise_exceptions_for_missing_entries=False
        )
    except (OSError, ValueError, KeyError, TypeError, json.JSONDecodeError) as error:
        found = f"no tokenizer can be loaded from {name}: {' '.join(str(error).split())}"
        raise user_error(place, found, "check the path, or the name and the network") from error
    if file is not None:
        tokenizer = _as_filed(tokenizer, Path(file))
    if not tokenizer(PROBE, add_special_tokens=False)["input_ids"]:
        raise user_error(
            place, f"the tokenizer of {name} makes no tokens of a text", "take another"
        )
    if tokenizer.eos_token_id is None:
        raise user_error(
            place,
            f"the tokenizer of {name} has no EOS token, so a model could not learn to stop",
            "set eos_token in its tokenizer_config.json",
        )
    return tokenizer


def _checked(name: str, place: str) -> str:
    """Return a local folder's path, or the name as it is if it may be one of the hub."""
    path = Path(name).expanduser()
    if path.is_dir():
        if any((path / file).exists() for file in TOKENIZER_FILES):
            return str(path)
        if (path / "adapter_config.json").exists():
            found = f"{name} holds adapters without a tokenizer"
            raise user_error(place, found, "set model.tokenizer to the base model's")
        raise user_error(
            place, f"{name} holds no tokenizer", "set model.tokenizer to one that does"
        )
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise user_error(place, f"there is no folder {name}", "check the path")
    return name


def _as_filed(tokenizer: PreTrainedTokenizerBase, file: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer if it does as its tokenizer.json says, else one that does."""
    filed = Tokenizer.from_file(str(file))
    filed.no_truncation()
    filed.no_padding()
    found = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    same = found == filed.encode(PROBE, add_special_tokens=False).ids
    added = {t for t in tokenizer.get_vocab() if filed.token_to_id(t) is None}
    added -= _named(added, file.parent)
    if same and not added:
        return tokenizer
    if not same:
        log.warning("%s: tokens as in this file, not as in %s", file, type(tokenizer).__name__)
    special = {r: t for r, t in tokenizer.special_tokens_map.items() if str(t) not in added}
    return PreTrainedTokenizerFast(
        tokenizer_object=filed,
        chat_template=tokenizer.chat_template,
        model_max_length=tokenizer.model_max_length,
        name_or_path=tokenizer.name_or_path,
        **special,
    )


def _named(tokens: Iterable[str], folder: Path) -> set[str]:
    """Return which tokens a tokenizer's other files name.

    What no file names its class has added, as Qwen2Tokenizer does, and no model has a row for it.
    """
    files = [folder / file for file in NAMING]
    text = "".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
    return {t for t in tokens if json.dumps(t) in text or json.dumps(t, ensure_ascii=False) in text}


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, *, split_digits: bool = True
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE: any text can be written in it, and comes back as it was but for NFC.

    EOS is ``<|endoftext|>``; the chat template is ChatML, whose turns end with ``<|im_end|>``. With
    ``split_digits`` the rules are those of transformers' Qwen2Tokenizer, which it takes beside any
    model of type qwen2, so that the saved folder is read alike with a model in it and without.

    Args:
        texts: what to learn frequent words from.
        vocab_size: tokens, special ones included; fewer if the texts do not hold so many.
        split_digits: each digit is a token, which arithmetic asks for; else numbers are words too.

    Raises:
        UserError: if ``vocab_size`` has no room for all bytes and the special tokens.
    """
    least = BYTES + len(SPECIAL)
    if vocab_size < least:
        raise user_error(
            "vocab_size", f"{vocab_size} tokens can't hold all bytes", f"take {least} or more"
        )
    rules = Qwen2Tokenizer() if split_digits else _byte_level()
    tokenizer = rules.train_new_from_iterator(
        texts, vocab_size, new_special_tokens=list(SPECIAL[1:]), show_progress=False
    )
    tokenizer.pad_token = PAD
    tokenizer.chat_template = CHATML
    return tokenizer


def _byte_level() -> PreTrainedTokenizerFast:
    """Return an empty tokenizer that cuts words as GPT-2's does."""
    rules = Tokenizer(models.BPE())
    rules.add_special_tokens([EOS])
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=rules, eos_token=EOS)
