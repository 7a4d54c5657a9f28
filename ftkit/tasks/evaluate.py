"""``ftkit eval``: measure a policy or a reward model on held-out rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from ftkit.core.errors import user_error
from ftkit.data.template import stop_tokens
from ftkit.model.fingerprint import reference_fingerprint
from ftkit.model.load import check_positions, load_policy, load_scorer
from ftkit.model.reference import load_reference
from ftkit.model.tokenizer import load_tokenizer
from ftkit.recipe.files import is_path
from ftkit.run import set_up_torch
from ftkit.run_rollouts import outside_of
from ftkit.tasks.figures import report
from ftkit.tasks.held_out import HeldOut, Picked, held_out
from ftkit.tasks.target import Target, target_of
from ftkit.train.answers import held_out_sampling
from ftkit.train.evaluation import Measures, choose, evaluate, require_numbers
from ftkit.train.reference import with_reference
from ftkit.train.score import REFERENCE, ranker_of, references_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ftkit.model.policy import Policy
    from ftkit.model.reader import Reader
    from ftkit.train.evaluation import Rows


def evaluate_command(
    target: str,
    overrides: Sequence[str],
    *,
    data: str | None,
    limit: int | None,
    as_json: bool,
    rows: str | None,
) -> None:
    """Measure a model and print what was found.

    Args:
        target: a recipe (its ``model`` is measured, as it is before training), a run's folder (the
            model that it made), or the folder of a model or reward model.
        overrides: ``KEY=VALUE``, as with a recipe.
        data: held-out rows in the place of the recipe's: demonstrations, pairs, or a pool's folder;
            needed with a model's folder.
        limit: measure at most so many rows; None = all (``eval.limit`` is for during training).
        as_json: print one JSON object, ``Measures.to_json``, and nothing else.
        rows: a file to which a line of JSON is written for each row; it must not exist.

    Raises:
        UserError: if anything that the user gave is wrong.
        RunError: if what the model says of a row is no number.
    """
    _check_free(rows)
    aim = target_of(target, overrides, data)
    recipe = aim.recipe
    if recipe.data.eval is None:
        raise user_error(target, "there are no held-out rows: no data.eval", "add --data FILE")
    set_up_torch(recipe)
    tokenizer = load_tokenizer(recipe.model)
    measured = held_out(recipe, tokenizer, given=data is not None)
    with Console(stderr=True).status("measuring"):
        found = _measure(aim, measured, tokenizer, limit)
    require_numbers(
        found.rows, [math.isfinite(r.get("nll", 0.0)) for r in found.rows], "likelihoods"
    )
    if rows is not None:
        _write(Path(rows), found.rows)
    if as_json:
        typer.echo(json.dumps(found.to_json(), allow_nan=False))
    else:
        report(recipe.model.path or "random weights", found)


def _check_free(rows: str | None) -> None:
    """Refuse a file that exists before anything is computed for it."""
    if rows is None:
        return
    if Path(rows).exists():
        raise user_error(f"--rows {rows}", "it exists already", "give another file, or remove it")
    if not Path(rows).parent.is_dir():
        raise user_error(f"--rows {rows}", "its folder does not exist", "make it, or give another")


def _measure(
    aim: Target, measured: HeldOut, tokenizer: PreTrainedTokenizerBase, limit: int | None
) -> Measures:
    """Load what is needed, one model after the other, and measure."""
    recipe = aim.recipe
    rows: Rows = measured.rows
    if measured.compares:
        rows = _with_references(aim, measured, tokenizer, limit)
    policy = _load(aim, tokenizer)
    check_positions(policy.model, int(measured.rows.lengths.max()))
    with outside_of(recipe, policy) as outside:
        return evaluate(
            policy,
            rows,
            objective=recipe.method,
            ranker=ranker_of(recipe.eval, recipe.method),
            limit=limit,
            sample=held_out_sampling(recipe.method, recipe.sample),
            judge=outside.judge,
            stop=stop_tokens(tokenizer),
            seed=recipe.seed,
            engine=outside.engine,
        )


def _load(aim: Target, tokenizer: PreTrainedTokenizerBase) -> Reader:
    """Load what is measured."""
    recipe = aim.recipe
    load = load_policy if recipe.method.reads == "logp" else load_scorer
    policy: Reader = load(
        recipe.model,
        tokenizer,
        micro_tokens=recipe.train.micro_tokens,
        seed=recipe.seed,
        trainable=False,
    )
    return policy


def _with_references(
    aim: Target, measured: HeldOut, tokenizer: PreTrainedTokenizerBase, limit: int | None
) -> Rows:
    """Return the rows with what references say of their answers; of those measured only."""
    recipe = aim.recipe
    wanted = references_of(recipe.eval, recipe.method)
    if not wanted:
        return measured.rows
    picked = Picked(measured.rows, choose(len(measured.rows), limit, recipe.seed))
    found: Any = picked
    for column, name in wanted.items():
        own = column == REFERENCE and REFERENCE in recipe.method.columns
        key = "method.reference" if own else "eval.reference"
        reference = _reference(key, name, aim, tokenizer)
        known = with_reference(found, reference, reference_fingerprint(reference))
        found = replace(known, known_as=column.removeprefix("logp_"))
        del reference  # each is dropped before the next is loaded
    return picked.spread(found)


def _reference(key: str, name: str, aim: Target, tokenizer: PreTrainedTokenizerBase) -> Policy:
    """Load a reference: the model before training, or one that is named.

    Args:
        key: the recipe's, that says which.
        name: what it says.
        aim: what is measured.
        tokenizer: its tokenizer.
    """
    recipe, before = aim.recipe, aim.before
    micro_tokens = recipe.train.micro_tokens
    if name != "initial":
        _require_folder(key, name)
        return load_reference(name, recipe.model, tokenizer, micro_tokens)
    if before is None:
        found = f"nothing says what {recipe.model.path} was before training"
        remedy = f"add {key}=FOLDER, or give the run's folder as the target"
        raise user_error(key, found, remedy)
    if before.model.path is not None:
        _require_folder(key, before.model.path)
    return load_policy(
        before.model, tokenizer, micro_tokens=micro_tokens, seed=before.seed, trainable=False
    )


def _require_folder(key: str, path: str) -> None:
    if is_path(path) and not Path(path).expanduser().is_dir():
        found = f"the reference is '{path}', and there is no such folder"
        raise user_error(key, found, f"put it back, or add {key}=FOLDER")


def _write(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with file.open("x", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
