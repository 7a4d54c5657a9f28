"""What a command is pointed at: a recipe, the folder of a run, or that of a model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ftkit.core.errors import user_error
from ftkit.model.weights import SCALAR, WITH_HEAD
from ftkit.recipe import Recipe, load_recipe
from ftkit.recipe.files import MODEL_FILES

if TYPE_CHECKING:
    from ftkit.model.config import ModelConfig


@dataclass(frozen=True)
class Target:
    """What is to be measured, and how."""

    recipe: Recipe
    """With the model to be measured."""
    before: Recipe | None
    """With the model before training, the reference ``initial``; None where it is not known."""

    @property
    def initial(self) -> ModelConfig | None:
        """The model before training."""
        return None if self.before is None else self.before.model


def is_run(folder: Path) -> bool:
    """Whether a run has begun in a folder."""
    return (folder / "recipe.yaml").is_file()


def is_model(folder: Path) -> bool:
    """Whether a folder holds a model or adapters."""
    return any((folder / file).is_file() for file in MODEL_FILES)


def is_reward_model(folder: Path) -> bool:
    """Whether a folder holds a reward model, or the adapters of one."""
    config, adapters = _json(folder / "config.json"), _json(folder / "adapter_config.json")
    named = str(config.get("architectures"))
    return WITH_HEAD in named or adapters.get("task_type") == SCALAR.task


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
    emptied = [f"model.{key}=null" for key in ("init", "tokenizer", "lora", "quantize")]
    return load_recipe(str(folder / "recipe.yaml"), [changed, *emptied, *overrides]).recipe


def target_of(target: str, overrides: Sequence[str], data: str | None) -> Target:
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
        recipe = load_recipe(target, [*rows, *overrides]).recipe
        return Target(recipe, recipe)
    if is_run(folder):
        before = load_recipe(str(folder / "recipe.yaml")).recipe
        return Target(recipe_of_run(folder, [*rows, *overrides]), before)
    if not is_model(folder):
        raise user_error(
            target,
            "holds neither a run (recipe.yaml) nor a model (config.json)",
            "give a recipe, a run's folder or a model's folder",
        )
    if data is None:
        raise user_error(target, "a model's folder names no rows", "add --data FILE")
    return Target(_recipe_of_model(folder, data, overrides), None)


def _recipe_of_model(folder: Path, data: str, overrides: Sequence[str]) -> Recipe:
    """Return a recipe that measures a model of which nothing else is known."""
    tree = {
        "run": str(folder),
        "method": {"name": "reward" if is_reward_model(folder) else "sft"},
        "data": {"train": data, "eval": data},
        "model": {"path": str(folder)},
        "train": {"lr": 1.0},
    }
    with tempfile.TemporaryDirectory() as aside:
        file = Path(aside) / "recipe.yaml"
        file.write_text(json.dumps(tree), encoding="utf-8")  # JSON is YAML
        return load_recipe(str(file), overrides).recipe


def _json(file: Path) -> dict[str, object]:
    """Return what a file of JSON says; nothing where it says nothing, or is none."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _says(key: str, value: str) -> str:
    """Return the override that sets a key to a text, whatever it looks like."""
    return f"{key}={json.dumps(value)}"
