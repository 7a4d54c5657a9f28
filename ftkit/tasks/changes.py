"""Writing a model in another form, and measuring what each step of that did to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ftkit.core.errors import RunError, UserError, user_error
from ftkit.core.fingerprint import tokenizer_fingerprint
from ftkit.data.load import examples_of
from ftkit.data.template import stop_tokens
from ftkit.model.config import ModelConfig
from ftkit.model.merge import (
    Difference,
    apart,
    has_adapters,
    in_float32,
    merge,
    outputs,
    round_to,
    spread,
)
from ftkit.model.reader import bare
from ftkit.model.save import save_model
from ftkit.tasks.weights import load

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from ftkit.model.reader import Reader
    from ftkit.recipe import Recipe

ROWS, LONGEST = 8, 64
"""Of a probe: rows, and tokens of each."""

TOLERANCE = 1e-3
"""Largest difference, in parts of the spread of what a model says, that float32's own rounding is
taken to explain."""

LOST = 0.25
"""Where rounding moves a model by this part of what adapters do, it is told."""


@dataclass(frozen=True)
class Probe:
    """Rows on which models are compared."""

    rows: Sequence[Tensor]
    """int64 [L] each."""
    of: str
    """Where they come from, in words."""
    note: str = ""
    """Why they are not the run's own, if they are not."""


@dataclass
class Changes:
    """What happened to a model on its way into a folder, each as a difference of what it says."""

    spread: float
    """The standard deviation of what it said before: logits, or rewards."""
    found: dict[str, Difference] = field(default_factory=dict)
    """``total``: the folder against the model as it was trained.  Its parts: ``merging`` (adapters
    into weights, in float32), ``rounding`` (of the weights) and ``reading`` (the folder against
    what was written).  For comparison ``learnt``: the model without its adapters against it."""

    def beyond_rounding(self, name: str) -> str | None:
        """Say how large a change is that rounding in float32 does not explain; None if it does."""
        gap, limit = self.found[name].largest, TOLERANCE * self.spread
        if gap <= limit:
            return None
        return (
            f"changes what the model says by up to {gap:.3g} (its spread is {self.spread:.3g}), "
            f"and rounding in float32 explains {limit:.1g} at most"
        )

    def loses(self) -> bool:
        """Whether rounding undoes a good part of what adapters have learnt."""
        learnt, rounding = self.found.get("learnt"), self.found.get("rounding")
        return bool(learnt and rounding and rounding.mean > LOST * learnt.mean)


def probe(recipe: Recipe, reader: Reader, *, templated: bool) -> Probe:
    """Return rows of a run's data, or random tokens where these cannot be read.

    Args:
        recipe: the run's.
        reader: a model of the run.
        templated: whether its tokenizer has the run's chat template already.
    """
    known = getattr(reader.model.config.get_text_config(), "max_position_embeddings", None)
    longest = min(LONGEST, known or LONGEST)
    try:
        rows = list(islice(_rows(recipe, reader.tokenizer, longest, templated=templated), ROWS))
    except (UserError, OSError) as error:
        vocabulary = bare(reader.model).get_input_embeddings().weight.shape[0]
        generator = torch.Generator().manual_seed(0)
        rows = list(torch.randint(vocabulary, (ROWS, longest), generator=generator))
        why = str(error).splitlines()[0]
        return Probe(rows, "random tokens", f"no rows of the run's data can be read: {why}")
    return Probe(rows, "the run's training rows")


def _rows(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, longest: int, *, templated: bool
) -> Iterator[Tensor]:
    config = recipe.data.model_copy(update={"template": None}) if templated else recipe.data
    for _, group in examples_of(config, recipe.method.kind, tokenizer, recipe.seed):
        answer = group.answers[0].tokens if group.answers else ()
        yield torch.tensor((*group.prompt, *answer)[:longest])


def write(
    reader: Reader,
    recipe: Recipe,
    folder: Path,
    rows: Sequence[Tensor],
    *,
    dtype: torch.dtype,
    alone: bool,
    place: str,
) -> Changes:
    """Write a model, read it back, and measure what each step changed.

    Everything is computed in float32 on the CPU, so that differences are those of the weights.

    Args:
        reader: the model as it was trained, in float32; it is of no use afterwards.
        recipe: the run's.
        folder: where to.
        rows: of a probe.
        dtype: of what is written.
        alone: adapters are written without their base, and not merged into it.
        place: what errors name.

    Raises:
        UserError: if merging changes the model by more than rounding does.
        RunError: if the folder holds another model than was written.
    """
    trained = outputs(reader, rows)
    changes = Changes(spread(trained))
    if has_adapters(reader):
        with reader.model.disable_adapter():
            changes.found["learnt"] = apart(outputs(reader, rows), trained)
    if has_adapters(reader) and not alone:
        _merge(reader, rows, trained, changes, place)
    written = outputs(reader, rows)
    if dtype != torch.float32:
        exact = written
        round_to(reader, dtype, adapters=alone)
        in_float32(reader)  # from here on the values that are written
        written = outputs(reader, rows)
        changes.found["rounding"] = apart(written, exact)
        del exact
        round_to(reader, dtype, adapters=alone)
    save_model(reader, folder, stop_tokens(reader.tokenizer))
    reader.model.to("meta")  # its memory is free for the one that is read back
    again = load(recipe, _as_written(recipe, folder, dtype, alone=alone))
    _check_tokenizer(reader, again, folder)
    in_float32(again)
    found = outputs(again, rows)
    changes.found["reading"] = apart(found, written)
    if wrong := changes.beyond_rounding("reading"):
        raise RunError(f"{place}: reading the folder back {wrong}; nothing was exported")
    changes.found["total"] = apart(found, trained)
    return changes


def _merge(
    reader: Reader, rows: Sequence[Tensor], trained: Sequence[Tensor], changes: Changes, place: str
) -> None:
    merge(reader)
    changes.found["merging"] = apart(outputs(reader, rows), trained)
    if wrong := changes.beyond_rounding("merging"):
        tied = bare(reader.model).config.get_text_config().tie_word_embeddings
        why = "; its head and its embeddings are one matrix, which adapters of either change for "
        raise user_error(
            place,
            f"merging its adapters {wrong}" + (why + "both" if tied else ""),
            "export them alone (--no-merge)",
        )


def _as_written(recipe: Recipe, folder: Path, dtype: torch.dtype, *, alone: bool) -> ModelConfig:
    """Return the ``model:`` that reads a folder back; the base of adapters as it was trained."""
    name = recipe.model.dtype if alone else str(dtype).removeprefix("torch.")
    trust = recipe.model.trust_remote_code
    return ModelConfig.model_validate(
        {"path": str(folder), "dtype": name, "trust_remote_code": trust}
    )


def _check_tokenizer(reader: Reader, again: Reader, folder: Path) -> None:
    """Compare the tokenizer and the chat template on disk with those of the run."""
    mine, its = reader.tokenizer, again.tokenizer
    if tokenizer_fingerprint(mine) != tokenizer_fingerprint(its):
        raise RunError(f"{folder}: the tokenizer was not read back as it was written")
    if mine.chat_template != its.chat_template:
        raise RunError(f"{folder}: the chat template was not read back as it was written")
