"""Texts to token ids, with the special tokens under our control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftkit.core.errors import user_error

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANCHORS = ("\n", "=", "0")
"""Texts after which the tokens of a continuation are looked up."""


@dataclass(frozen=True, slots=True)
class Codec:
    """A tokenizer, and what it does of its own accord."""

    tokenizer: PreTrainedTokenizerBase
    bos: tuple[int, ...]
    """The BOS token, if the tokenizer puts one before every text by default; else nothing."""
    eos: int
    prefixes: bool
    """Whether it takes a text to begin with a space (as SentencePiece does)."""

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text, without any that the tokenizer would add."""
        return _ids(self.tokenizer, texts)

    def following(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text as it goes on after another, with no space put before."""
        plain = self.ids(texts)
        if not self.prefixes:
            return plain
        found: list[list[int] | None] = [None] * len(texts)
        for anchor, head in zip(ANCHORS, self.ids(ANCHORS), strict=True):
            todo = [n for n, ids in enumerate(found) if ids is None]
            joined = self.ids([anchor + texts[n] for n in todo])
            for n, ids in zip(todo, joined, strict=True):
                if head and ids[: len(head)] == head:
                    found[n] = ids[len(head) :]
        return [ids if ids is not None else other for ids, other in zip(found, plain, strict=True)]

    def opened(self, ids: list[int]) -> list[int]:
        """Put the BOS token before ``ids``, where the tokenizer wants one and there is none."""
        bos = list(self.bos)
        return ids if ids[: len(bos)] == bos else bos + ids

    def closed(self, ids: list[int]) -> list[int]:
        """Put exactly one EOS token at the end of ``ids``."""
        end = len(ids)
        while end and ids[end - 1] == self.eos:
            end -= 1
        return [*ids[:end], self.eos]


def load_codec(tokenizer: PreTrainedTokenizerBase) -> Codec:
    """Find out what a tokenizer adds to a text.

    Raises:
        UserError: if it has no EOS token, so that a model could not learn to stop.
    """
    eos = tokenizer.eos_token_id
    if eos is None:
        raise user_error(
            f"tokenizer {tokenizer.name_or_path}",
            "it has no EOS token, so a model could not learn to stop",
            "set eos_token in its tokenizer_config.json, or take another model.tokenizer",
        )
    newline, letter, both = _ids(tokenizer, ["\n", "a", "\na"])
    bos = tokenizer.bos_token_id
    opens = bos is not None and tokenizer("a")["input_ids"][:1] == [bos]
    return Codec(
        tokenizer,
        bos=(bos,) if opens else (),
        eos=eos,
        prefixes=both[len(newline) :] != letter,
    )


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(
        list(texts),
        add_special_tokens=False,
        padding=False,
        truncation=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    return ids
