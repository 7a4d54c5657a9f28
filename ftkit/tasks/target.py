"""What a command is pointed at: a recipe, the folder of a run, or that of a model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ftkit.core.errors import user_error
from ftkit.recipe import Recipe, load_recipe

MODEL_FILES = ("config.json", "adapter_config.json")
"""A folder with one of these holds a model or adapters."""


def is_run(folder: Path) -> bool:
    """Whether a run has begun in a folder."""
    return (folder / "recipe.yaml").is_file()


def is_model(folder: Path) -> bool:
    """Whether a folder holds a model or adapters."""
    return any((folder / file).is_file() for file in MODEL_FILES)


def recipe_of_run(folder: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a run, with the model that the run made in the place of its first one.

    Raises:
        UserError: if the run has made none yet, or an override is wrong.
    """
    model = folder / "model"
    if not is_model(model):
        raise user_error(
            str(folder),
            "this run has no model/ yet",
            f"end it first: ftkit train {folder / 'recipe.yaml'} --resume",
        )
    changed = _says("model.path", str(model))
    emptied = [f"model.{key}=null" for key in ("init", "tokenizer", "lora")]
    return load_recipe(str(folder / "recipe.yaml"), [changed, *emptied, *overrides]).recipe


def recipe_of_target(target: str, overrides: Sequence[str], data: str | None) -> Recipe:
    """Return what is to be measured: a model, held-out rows, and how.

    Args:
        target: a recipe, whose ``model`` is meant; a run's folder, where it is the model that the
            run made; or a model's folder.
        overrides: ``KEY=VALUE``, as with a recipe.
        data: held-out rows in the place of the recipe's; needed with a model's folder.

    Raises:
        UserError: if there is no such target, or an override is wrong.
    """
    folder = Path(target)
    rows = [] if data is None else [_says("data.eval", data)]
    if not folder.is_dir():
        return load_recipe(target, [*rows, *overrides]).recipe
    if is_run(folder):
        return recipe_of_run(folder, [*rows, *overrides])
    if not is_model(folder):
        raise user_error(
            target,
            "holds neither a run (recipe.yaml) nor a model (config.json)",
            "give a recipe, a run's folder or a model's folder",
        )
    if data is None:
        raise user_error(target, "a model's folder names no rows", "add --data FILE")
    tree = {
        "run": target,
        "method": {"name": "sft"},
        "data": {"train": data, "eval": data},
        "model": {"path": target},
        "train": {"lr": 1.0},
    }
    with tempfile.TemporaryDirectory() as aside:
        file = Path(aside) / "recipe.yaml"
        file.write_text(json.dumps(tree), encoding="utf-8")  # JSON is YAML
        return load_recipe(str(file), overrides).recipe


def _says(key: str, value: str) -> str:
    """Return the override that sets a key to a text, whatever it looks like."""
    return f"{key}={json.dumps(value)}"
