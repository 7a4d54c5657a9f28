"""``ftkit check``: is a recipe valid?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import typer

from ftkit.core.errors import USER_ERROR, Fault, UserError
from ftkit.recipe import Loaded, load_recipe, missing_files


def check(arguments: Sequence[str], *, files: bool, as_json: bool) -> int:
    """Say whether recipes are valid, and if not, all that is wrong.

    Args:
        arguments: recipes, and ``KEY=VALUE`` for all of them.
        files: also look whether the files that they name are there.
        as_json: one line a recipe, ``{"recipe", "valid", "method", "run", "faults"}``, each fault
            with its place, what was found and the remedy.

    Returns:
        The exit status.

    Raises:
        UserError: no recipe is named.
    """
    overrides = [each for each in arguments if "=" in each]
    recipes = [each for each in arguments if "=" not in each]
    if not recipes:
        raise UserError(Fault("", "no recipe is named", "write ftkit check RECIPE [KEY=VALUE ...]"))
    every = [_report(recipe, overrides, files=files, as_json=as_json) for recipe in recipes]
    if not as_json and sum(every) > 1:
        typer.echo(f"{sum(every)} faults", err=True)
    return USER_ERROR if any(every) else 0


def _report(recipe: str, overrides: Sequence[str], *, files: bool, as_json: bool) -> int:
    """Print what is to be said of one recipe; return the number of its faults."""
    loaded: Loaded | None = None
    try:
        loaded = load_recipe(recipe, overrides)
        faults = missing_files(loaded) if files else []
    except UserError as error:
        faults = list(error.faults)
    method = loaded.recipe.method.name if loaded else None
    run = loaded.recipe.run if loaded else None
    if as_json:
        said = {"recipe": recipe, "valid": not faults, "method": method, "run": run}
        typer.echo(json.dumps({**said, "faults": [asdict(fault) for fault in faults]}))
    elif faults:
        typer.echo("\n".join(map(str, faults)), err=True)
    else:
        typer.echo(f"{recipe}: valid; {method}, into {run}")
    return len(faults)
