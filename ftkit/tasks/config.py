"""``ftkit config``: every value of a recipe, and where it came from."""

from __future__ import annotations

import json

import typer

from ftkit.recipe import Loaded, flatten


def show_config(loaded: Loaded, *, as_json: bool) -> None:
    """Print every value with its origin: a place in a file, the command line, or the default.

    Args:
        loaded: a valid recipe.
        as_json: one object, ``{path: {"value", "origin"}}``.
    """
    rows = {
        path: {"value": value, "origin": loaded.origin(path)}
        for path, value in flatten(loaded.resolved()).items()
    }
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    values = {path: json.dumps(row["value"], ensure_ascii=False) for path, row in rows.items()}
    keys_width = max(map(len, values))
    value_width = min(48, max(map(len, values.values())))
    for path, value in values.items():
        origin = rows[path]["origin"]
        line = f"{path:<{keys_width}}  {value:<{value_width}}  "
        typer.echo(line + typer.style(origin, dim=origin == "default"))
