"""``ftkit recipes``: the recipes that come with ftkit."""

from __future__ import annotations

import json
import textwrap
from itertools import takewhile
from pathlib import Path

import typer

from ftkit.core.errors import user_error
from ftkit.recipe import builtin_recipes
from ftkit.recipe.builtin import near_names


def list_recipes(*, as_json: bool) -> None:
    """Print each built-in recipe's name and what its first comment says.

    Args:
        as_json: one object, ``{name: text}``.
    """
    texts = {name: _about(path) for name, path in builtin_recipes().items()}
    if as_json:
        typer.echo(json.dumps(texts, indent=2, ensure_ascii=False))
        return
    for name, text in texts.items():
        body = textwrap.fill(text, 96, initial_indent="  ", subsequent_indent="  ")
        typer.echo(f"{typer.style(name, bold=True)}\n{body}")


def show_recipe(name: str) -> None:
    """Print a built-in recipe as it is written."""
    typer.echo(_file(name).read_text(encoding="utf-8"), nl=False)


def copy_recipe(name: str, to: str | None) -> None:
    """Copy a built-in recipe.

    Args:
        name: such as ``gsm8k/sft-tiny``.
        to: the file, or a folder; by default the name's last part in the working directory.

    Raises:
        UserError: there is no such recipe, the file is there already, or its folder is not.
    """
    source = _file(name)
    target = Path(to or source.name)
    if target.is_dir():
        target /= source.name
    text = source.read_text(encoding="utf-8")
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise user_error(str(target), "is there already", "name another file") from error
    except OSError as error:
        raise user_error(str(target), f"cannot be written: {error.strerror}") from error
    typer.echo(f"{target}: a copy of {name}; train with: ftkit train {target}")


def _file(name: str) -> Path:
    """Return the file of a built-in recipe."""
    files = builtin_recipes()
    if name.removesuffix(".yaml") not in files:
        raise user_error(name, "no built-in recipe of this name", near_names(name, files))
    return files[name.removesuffix(".yaml")]


def _about(path: Path) -> str:
    """Return the first sentences of a recipe: the comment at its top, in one line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return " ".join(line.lstrip("# ") for line in takewhile(lambda line: line[:1] == "#", lines))
