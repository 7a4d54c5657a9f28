"""``ftkit eval``: measure a model on held-out rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from ftkit.core.errors import user_error
from ftkit.data.config import EvalSplitConfig, SourceConfig
from ftkit.data.load import Settings, load_dataset, load_datasets
from ftkit.data.template import resolve_template, stop_tokens
from ftkit.model.load import load_policy
from ftkit.model.tokenizer import load_tokenizer
from ftkit.run import set_up_torch
from ftkit.tasks.target import recipe_of_target
from ftkit.train.evaluation import Measures, evaluate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ftkit.data.dataset import Dataset
    from ftkit.recipe import Recipe

ABOUT = {
    "loss": "nats a token",
    "perplexity": "e to the loss",
    "exact_match": "greedy answers right",
    "length": "tokens a greedy answer",
    "truncated": "greedy answers cut by the limit",
    "exact_match_sampled": "sampled answers right",
    "length_sampled": "tokens a sampled answer",
    "truncated_sampled": "sampled answers cut by the limit",
}
"""What each figure is, in words."""


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
            model that it made), or a model's folder.
        overrides: ``KEY=VALUE``, as with a recipe.
        data: held-out rows in the place of the recipe's; needed with a model's folder.
        limit: measure at most so many rows; None = all (``eval.limit`` is for during training).
        as_json: print one JSON object, ``Measures.to_json``, and nothing else.
        rows: a file to which a line of JSON is written for each row; it must not exist.

    Raises:
        UserError: if anything that the user gave is wrong.
    """
    _check_free(rows)
    recipe = recipe_of_target(target, overrides, data)
    if recipe.data.eval is None:
        raise user_error(target, "there are no held-out rows: no data.eval", "add --data FILE")
    set_up_torch(recipe)
    tokenizer = load_tokenizer(recipe.model)
    dataset = _held_out(recipe, tokenizer)
    policy = load_policy(
        recipe.model,
        tokenizer,
        micro_tokens=recipe.train.micro_tokens,
        seed=recipe.seed,
        trainable=False,
    )
    with Console(stderr=True).status("measuring"):
        found = evaluate(
            policy,
            dataset,
            limit=limit,
            sample=recipe.sample,
            verify=recipe.verify,
            stop=stop_tokens(tokenizer),
            seed=recipe.seed,
        )
    if rows is not None:
        _write(Path(rows), found.rows)
    if as_json:
        typer.echo(json.dumps(found.to_json(), allow_nan=False))
    else:
        _report(recipe, found)


def _check_free(rows: str | None) -> None:
    """Refuse a file that exists before anything is computed for it."""
    if rows is None:
        return
    if Path(rows).exists():
        raise user_error(f"--rows {rows}", "it exists already", "give another file, or remove it")
    if not Path(rows).parent.is_dir():
        raise user_error(f"--rows {rows}", "its folder does not exist", "make it, or give another")


def _held_out(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Return the rows to measure; training rows are only read to find those among them."""
    config, kind = recipe.data, recipe.method.kind
    if isinstance(config.eval, EvalSplitConfig):
        held_out = load_datasets(config, kind, tokenizer, recipe.seed).eval
    else:
        source = SourceConfig(path=config.eval) if isinstance(config.eval, str) else config.eval
        assert source is not None
        resolve_template(tokenizer, config.template)
        held_out = load_dataset(source, Settings(config, kind, tokenizer, recipe.seed))
    assert held_out is not None
    return held_out


def _write(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with file.open("x", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _report(recipe: Recipe, found: Measures) -> None:
    """Print what was found as a table."""
    console = Console()
    model = recipe.model.path or "random weights"
    console.print(f"{model}: {found.n} rows, {found.tokens} trained tokens", soft_wrap=True)
    table = Table("", "value", "95 % interval", "", box=box.SIMPLE_HEAD)
    for name, figure in found.figures.items():
        known = figure.low is not None and figure.high is not None
        interval = f"{figure.low:.4g} to {figure.high:.4g}" if known else "unknown"
        table.add_row(name, f"{figure.value:.4g}", interval, ABOUT[name])
    console.print(table)
    for name, counts in found.verdicts.items():
        said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        console.print(f"{name}: {said}", soft_wrap=True)
