"""Examples to samples: tokens, which of them are learnt, what becomes of those too long."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from ftkit.core.errors import user_error
from ftkit.core.phase import beat
from ftkit.data.codec import Codec, load_codec
from ftkit.data.config import DataConfig
from ftkit.data.example import Chat, Comparison, Completion, Document, Example
from ftkit.data.read import Faults
from ftkit.data.sample import Sample, one_prompt, together
from ftkit.data.template import Template, render, template_text
from ftkit.data.turns import Tokens, check_template, encode_chats
from ftkit.objectives.base import Kind

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 512
"""Examples tokenized together."""


@dataclass
class Encoder:
    """Makes samples of examples; knows, once it has begun, how it masks them."""

    tokenizer: PreTrainedTokenizerBase
    config: DataConfig
    kind: Kind
    masks: str = ""
    """``all`` (documents), ``boundary`` (prompt, completion), ``markers``, ``diff`` (templates)."""
    _codec: Codec = field(init=False)
    _template: Template | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Look at the tokenizer."""
        if self.config.overlong == "split" and self.kind != "documents":
            raise user_error(
                "data.overlong", "`split` is for pretrain only", "use error, drop or truncate"
            )
        self._codec = load_codec(self.tokenizer)

    def encode(self, examples: Iterable[Example]) -> Iterator[tuple[Example, list[Sample]]]:
        """Yield each example with its samples, of which some may be dropped.

        Raises:
            UserError: if a mask can't be verified, or rows are too long with ``overlong: error``.
        """
        faults = Faults()
        rows = iter(examples)
        while batch := list(islice(rows, BATCH)):
            beat()
            for example, found in zip(batch, self._tokens(batch), strict=True):
                if isinstance(example, Comparison):
                    fitted = self._compared(example, found, faults)
                else:
                    samples = self._samples(example, found[0])
                    fitted = [cut for sample in samples for cut in self._fit(sample, faults)]
                if not faults:
                    yield example, fitted
        faults.check()

    def _tokens(self, batch: Sequence[Example]) -> Iterator[list[list[Tokens]]]:
        """Tokenize a batch, whose examples may be of several kinds: the samples of each answer."""
        if self.kind == "documents":
            self.masks = "all"
            texts = [self._text(example) for example in batch]
            every = zip(texts, self._codec.ids(texts), strict=True)
            return ([[_whole(self._codec, text, ids)]] for text, ids in every)
        answers = [_answers(example) for example in batch]
        chats = [one for own in answers for one in own if isinstance(one, Chat)]
        pairs = [one for own in answers for one in own if isinstance(one, Completion)]
        if pairs:
            self.masks = self.masks or "boundary"
        if chats and self._template is None:
            self._template, self.masks = check_template(self.tokenizer)
        of_chats = iter(encode_chats(self._template, chats) if self._template else [])
        of_pairs = iter(_pairs(self._codec, pairs))
        return (
            [next(of_chats) if isinstance(one, Chat) else [next(of_pairs)] for one in own]
            for own in answers
        )

    def _text(self, example: Example) -> str:
        """Return the whole text of an example."""
        if isinstance(example, Document):
            return example.text
        if isinstance(example, Completion):
            return example.prompt + example.completion
        text = template_text(self.tokenizer)
        assert isinstance(example, Chat)  # pairs are never learnt whole
        rendered = render(
            self.tokenizer, text, [example.messages], tools=example.tools, place=example.place
        )
        return rendered.texts[0]

    def _compared(
        self, example: Comparison, tokens: Sequence[list[Tokens]], faults: Faults
    ) -> list[Sample]:
        """Make one sample of a pair; one that compares nothing is dropped."""
        found = zip(example.answers, tokens, strict=True)
        answers = one_prompt(example.place, [self._samples(one, own) for one, own in found])
        own = Faults()
        fitted = [cut for one in answers for cut in self._fit(one, own)]
        if own:  # one is enough of a row
            faults.add(own.found[0].place, own.found[0].found, own.found[0].remedy)
            return []
        return [together(answers, fitted)]

    def _samples(
        self, example: Chat | Completion | Document, found: Sequence[Tokens]
    ) -> list[Sample]:
        """Put together what is known of an example's samples."""
        truth = None if isinstance(example, Document) else example.truth
        samples = [
            Sample(
                tuple(tokens.ids),
                tokens.learn,
                example.place,
                tokens.prompt_text,
                tokens.text,
                truth,
                straddled=tokens.straddled,
                turns=tokens.turns,
            )
            for tokens in found
        ]
        first = samples[0]
        own = first.ids if self.kind == "documents" else first.ids[: first.start]
        digest = hashlib.sha256(array("q", own).tobytes()).digest()
        key = int.from_bytes(digest[:8], "little")
        return [replace(sample, key=key) for sample in samples]

    def _fit(self, sample: Sample, faults: Faults) -> list[Sample]:
        """Apply ``max_length``."""
        if not sample.learn:
            return [replace(sample, dropped="it has no tokens")]
        if len(sample.ids) <= self.config.max_length:
            return [sample]
        last = sample.learn[-1][1]
        if last <= self.config.max_length:  # only what the template writes after it is too much
            return [replace(sample, ids=sample.ids[:last])]
        return self._shorten(sample, faults)

    def _shorten(self, sample: Sample, faults: Faults) -> list[Sample]:
        """Do with a sample that is too long what the recipe says."""
        length, limit = len(sample.ids), self.config.max_length
        if self.config.overlong == "error":
            found = f"{length} tokens are more than max_length {limit}"
            remedy = "raise data.max_length, or set data.overlong to drop or truncate"
            faults.add(sample.place, found, remedy)
            return []
        if self.config.overlong == "drop":
            return [replace(sample, dropped="longer than max_length")]
        if self.config.overlong == "split":
            return [self._cut(sample, at, at + limit) for at in range(0, length - 1, limit - 1)]
        cut = replace(self._cut(sample, 0, limit), truncated=True)
        return [cut if cut.learn else replace(cut, dropped="its prompt alone fills max_length")]

    def _cut(self, sample: Sample, start: int, stop: int) -> Sample:
        """Return a window of a sample, whose first token is not learnt."""
        ids = sample.ids[start:stop]
        learn = tuple(
            (max(a - start, 1), min(b, stop) - start)
            for a, b in sample.learn
            if min(b, stop) > max(a, start + 1)
        )
        cut = replace(sample, ids=ids, learn=learn)
        shown = ids if self.kind == "documents" else ids[cut.start :]
        return replace(cut, text=self.tokenizer.decode(shown))


def _answers(example: Example) -> tuple[Example, ...]:
    return example.answers if isinstance(example, Comparison) else (example,)


def _whole(codec: Codec, text: str, ids: list[int]) -> Tokens:
    """Learn every token but the first, which nothing comes before; none of an empty text."""
    if not ids:
        return Tokens([], (), "", text)
    ids = codec.closed(codec.opened(ids))
    return Tokens(ids, ((1, len(ids)),), "", text)


def _pairs(codec: Codec, pairs: Sequence[Completion]) -> Iterator[Tokens]:
    """Tokenize prompts and completions apart, as inference will."""
    prompts = codec.ids([pair.prompt for pair in pairs])
    answers = codec.following([pair.completion for pair in pairs])
    for pair, prompt, answer in zip(pairs, prompts, answers, strict=True):
        before = codec.opened(prompt)
        if not before:
            raise user_error(
                pair.place,
                "the prompt is empty, and the tokenizer has no BOS token to begin with",
                "give a prompt, or learn whole texts with `ftkit pretrain`",
            )
        ids = before + codec.closed(answer)
        yield Tokens(ids, ((len(before), len(ids)),), pair.prompt, pair.completion)
