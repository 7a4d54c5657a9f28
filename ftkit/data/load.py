"""From a recipe's ``data`` to data sets: rows are tokenized once and kept under a content key."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ftkit.core.errors import user_error
from ftkit.core.fingerprint import fingerprint, tokenizer_fingerprint
from ftkit.data.config import DataConfig, EvalSplitConfig, SourceConfig
from ftkit.data.dataset import Dataset, Datasets
from ftkit.data.encode import Encoder
from ftkit.data.example import Chat, Example
from ftkit.data.formats import examples
from ftkit.data.read import load_hub, source_files
from ftkit.data.report import Report
from ftkit.data.sample import Sample
from ftkit.data.store import Builder, Store, open_store
from ftkit.data.template import resolve_template
from ftkit.objectives.base import Kind

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ftkit.core.group import Group


@dataclass(frozen=True, slots=True)
class Settings:
    """What every source of a recipe is read and tokenized with."""

    config: DataConfig
    kind: Kind
    """What the method learns from; ``pool`` has the rows of ``demonstrations``."""
    tokenizer: PreTrainedTokenizerBase
    """With its chat template resolved."""
    seed: int
    """The recipe's, for ``limit`` and the split."""


VERSION = 2
"""Of the way from rows to tokens; a change of it makes every cached data set a miss."""


def train_sources(config: DataConfig) -> list[SourceConfig]:
    """Return ``data.train`` as a list of sources.

    Raises:
        UserError: if there are none.
    """
    sources = (
        [SourceConfig(path=config.train)] if isinstance(config.train, str) else list(config.train)
    )
    if not sources:
        raise user_error("data.train", "the list is empty", "name at least one set of rows")
    return sources


def eval_sources(config: DataConfig) -> list[SourceConfig]:
    """Return the source of held-out rows; none where they are drawn from the training rows."""
    named = config.eval
    if named is None or isinstance(named, EvalSplitConfig):
        return []
    return [SourceConfig(path=named) if isinstance(named, str) else named]


def load_datasets(
    config: DataConfig, kind: Kind, tokenizer: PreTrainedTokenizerBase, seed: int
) -> Datasets:
    """Read, tokenize and split the rows of a recipe, or find that this has been done.

    Args:
        config: the recipe's ``data``.
        kind: what the method learns from; the rows of a ``pool`` are those of ``demonstrations``.
        tokenizer: gets the recipe's chat template.
        seed: the recipe's, for ``limit`` and the split.

    Raises:
        UserError: if anything is wrong with files, rows, template or tokenizer, or if nothing is
            left to learn from.
    """
    resolve_template(tokenizer, config.template)
    settings = Settings(config, kind, tokenizer, seed)
    train = [(load_dataset(source, settings), source.weight) for source in train_sources(config)]
    measured: Dataset | None = None
    if isinstance(config.eval, EvalSplitConfig):
        train, measured = _split(train, config.eval.fraction, seed)
    for source in eval_sources(config):
        measured = load_dataset(source, settings)
    seen = 0
    if measured is not None:
        prompts = np.concatenate([one.keys for one, _ in train])
        seen = int(np.isin(measured.keys, prompts).sum())
    sets = [one for one, _ in train] + ([] if measured is None else [measured])
    warnings = [warning for one in sets for warning in one.report.warnings()]
    if seen and measured is not None:
        warnings.append(f"{seen} of {len(measured)} held-out prompts are trained on too")
    return Datasets(train, measured, seen, warnings)


def load_dataset(source: SourceConfig, settings: Settings) -> Dataset:
    """Return the samples of one source, from the cache if they are there.

    Raises:
        UserError: as ``load_datasets``.
    """
    folder = cache_folder() / dataset_key(source, settings)
    store = open_store(folder, source.path)
    if store is None:
        builder, report = Builder(), Report(source.path)
        for _, samples in encoded(source, settings, report):
            for sample in samples:
                if sample.dropped is None:
                    builder.add(sample)
        report.duplicates = builder.duplicates
        _check_left(report)
        builder.write(folder, {"report": report.to_json()})
        store = open_store(folder, source.path)
        if store is None:
            raise user_error(str(folder), "what was written can't be read back", "check the disk")
    whole = Dataset((store,), (np.arange(len(store)),), Report.from_json(store.meta["report"]))
    whole.report.add_lengths(whole)
    return whole


def encoded(
    source: SourceConfig, settings: Settings, report: Report
) -> Iterator[tuple[Example, list[Sample]]]:
    """Yield each row of a source with its samples, dropped ones too, and count them in ``report``.

    Raises:
        UserError: as ``load_datasets``.
    """
    encoder = Encoder(settings.tokenizer, settings.config, settings.kind)
    rows = examples(source, settings.kind, settings.seed, report.add_layout)
    for example, samples in encoder.encode(rows):
        report.masks = encoder.masks
        report.add(example, samples)
        yield example, samples


def examples_of(
    config: DataConfig,
    kind: Kind,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    *,
    held_out: bool = False,
) -> Iterator[tuple[Example, Group]]:
    """Yield what ``load_datasets`` has, in its order and each once, with what it was made of.

    The rows are read and tokenized again, since the cache has no examples.

    Args:
        config: as of ``load_datasets``, like all that follows.
        kind: see there.
        tokenizer: see there.
        seed: see there.
        held_out: what is measured, in place of what is learnt from.

    Yields:
        The example, a conversation cut to the turns that are learnt of it here, so that its prompt
        (``encode_prompt``) is the group's; and the group.

    Raises:
        UserError: as ``load_datasets``.
    """
    resolve_template(tokenizer, config.template)
    settings = Settings(config, kind, tokenizer, seed)
    split = isinstance(config.eval, EvalSplitConfig)
    sources = eval_sources(config) if held_out and not split else train_sources(config)
    seen: set[str] = set()
    for source in sources:
        for example, samples in encoded(source, settings, Report(source.path)):
            for sample in samples:
                kept = sample.dropped is None and sample.id not in seen
                if kept and (not split or is_held_out(sample, settings) == held_out):
                    seen.add(sample.id)
                    yield _cut(example, sample), sample.group(source.path)


def _cut(example: Example, sample: Sample) -> Example:
    """Leave out the turns of a conversation that follow those learnt in a sample of it."""
    if not isinstance(example, Chat) or sample.turns in ((), example.learnt):
        return example
    messages = example.messages[: sample.turns[-1] + 1]
    return replace(example, messages=messages, learnt=sample.turns)


def is_held_out(sample: Sample, settings: Settings) -> bool:
    """Return whether a sample of the training rows is held out by a split of them."""
    split = settings.config.eval
    if not isinstance(split, EvalSplitConfig):
        return False
    key = np.array([sample.key], dtype=np.uint64)
    return bool(held_out(key, split.fraction, settings.seed)[0])


def cache_folder() -> Path:
    """Return where tokenized rows are kept: ``$FTKIT_CACHE/data``, by default in ~/.cache/ftkit."""
    return Path(os.environ.get("FTKIT_CACHE") or "~/.cache/ftkit").expanduser() / "data"


def dataset_key(source: SourceConfig, settings: Settings) -> str:
    """Return the name of everything that a source's samples depend on."""
    config, tokenizer = settings.config, settings.tokenizer
    files = source_files(source)
    content = [[str(file), _digest(file)] for file in files]
    if not files:
        content = [[source.path, source.split, load_hub(source)._fingerprint]]
    return fingerprint(
        [VERSION, version("transformers"), version("tokenizers")],
        content,
        [source.format, source.columns, source.limit, settings.seed if source.limit else None],
        *([source.ask] if source.ask else []),
        ["demonstrations" if settings.kind == "pool" else settings.kind],
        [config.max_length, config.overlong],
        [tokenizer.chat_template, tokenizer_fingerprint(tokenizer)],
    )


def _digest(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _check_left(report: Report) -> None:
    """Refuse to go on with nothing."""
    if report.kept:
        return
    why = "; ".join(f"{dropped.count} {reason}" for reason, dropped in report.dropped.items())
    raise user_error(
        report.source,
        f"nothing is left to learn from {report.rows} rows: {why}",
        "look at the rows with `ftkit data`, or raise data.max_length",
    )


def held_out(keys: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Return which samples are held out: a share of the keys, those with the lowest hashes.

    A sample's lot depends on nothing but its key and the seed, so equal prompts stay together, and
    rows that are added to a file move no others.

    Args:
        keys: uint64 [samples].
        fraction: the expected share.
        seed: the recipe's.

    Returns:
        bool [samples].
    """
    salt = int(fingerprint("held out", seed)[:16], 16)
    x = keys ^ np.uint64(salt)
    # The finalizer of splitmix64 (Steele, Lea and Flood, 2014) mixes every bit into all others.
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    x ^= x >> np.uint64(31)
    return x < np.uint64(int(fraction * 2**64))


def _split(
    train: list[tuple[Dataset, float]], fraction: float, seed: int
) -> tuple[list[tuple[Dataset, float]], Dataset]:
    """Hold out a share of the prompts of every set."""
    left: list[tuple[Dataset, float]] = []
    parts: list[Store] = []
    rows: list[np.ndarray] = []
    for one, weight in train:
        mask = held_out(one.keys, fraction, seed)
        kept = one.select([~mask])
        kept.report.held_out = int(mask.sum())
        left.append((kept, weight))
        parts += one.parts
        rows += [where[mask] for where in one.where]
    report = Report(f"{fraction:g} of data.train", masks=train[0][0].report.masks)
    out = Dataset(tuple(parts), tuple(rows), report)
    report.add_lengths(out)
    for what, size in (("held out", len(out)), ("to learn from", min(len(one) for one, _ in left))):
        if size == 0:
            total = sum(len(one) for one, _ in train)
            raise user_error(
                "data.eval.fraction",
                f"{fraction:g} of {total} samples leaves none {what}",
                "choose another fraction, or give a file of held-out rows",
            )
    return left, out
