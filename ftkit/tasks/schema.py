"""``ftkit schema``: the recipe's JSON schema."""

from __future__ import annotations

import json

import typer

from ftkit.recipe.schema import editor_schema


def show_schema() -> None:
    """Print the JSON schema by which editors complete and check recipe files."""
    typer.echo(json.dumps(editor_schema(), indent=2, ensure_ascii=False))
