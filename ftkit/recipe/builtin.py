"""The recipes that come with ftkit, and finding a recipe by file or by name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import ftkit
from ftkit.core.errors import user_error
from ftkit.recipe.suggest import closest

SUFFIXES = (".yaml", ".yml")


def builtin_recipes() -> dict[str, Path]:
    """Return the file of each built-in recipe by its name, such as ``gsm8k/sft-tiny``."""
    package = Path(ftkit.__file__).parent
    folder = package / "builtin_recipes"  # where the wheel puts what a checkout has in recipes/
    if not folder.is_dir():
        folder = package.parent / "recipes"
    files = sorted(folder.rglob("*.yaml"))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def find_recipe(said: str, *, beside: Path | None = None, place: str = "") -> Path:
    """Return the file of a recipe.

    Args:
        said: a file, or the name of a built-in recipe.
        beside: the folder to which a file is relative; by default the working directory.
        place: where ``said`` stands, for the error; by default ``said`` itself.

    Raises:
        UserError: there is neither.
    """
    place = place or said
    file = (beside or Path()) / said
    if file.is_file():
        return file
    builtin = builtin_recipes()
    name = said.removesuffix(".yaml")
    if name in builtin:
        return builtin[name]
    if file.is_dir():
        found = f"'{said}' is a folder, not a recipe"
        recipe = file / "recipe.yaml"
        remedy = f"write {recipe}" if recipe.is_file() else "write a .yaml file"
        raise user_error(place, found, remedy)
    names = list(builtin)
    if file.parent.is_dir():
        here = (each for each in file.parent.iterdir() if each.suffix in SUFFIXES)
        names += [str(Path(said).parent / each.name) for each in sorted(here)]
    raise user_error(place, f"no file and no built-in recipe '{said}'", near_names(said, names))


def near_names(said: str, names: Iterable[str]) -> str:
    """Return which recipe may have been meant, as a question, or how to list them."""
    names = list(names)
    if near := closest(said, names) or closest(Path(said).stem, names):
        return f"did you mean '{near}'?"
    return "`ftkit recipes list` names the built-in ones"
