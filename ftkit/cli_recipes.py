"""The commands below ``ftkit recipes``."""

from __future__ import annotations

from typing import Annotated

import typer

from ftkit.cli_arguments import Json

recipes_app = typer.Typer(no_args_is_help=True, help="The recipes that come with ftkit.")


@recipes_app.command("list")
def recipes_list(as_json: Json = False) -> None:
    """List the built-in recipes."""
    from ftkit.tasks.recipes import list_recipes

    list_recipes(as_json=as_json)


@recipes_app.command("show")
def recipes_show(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Print a built-in recipe."""
    from ftkit.tasks.recipes import show_recipe

    show_recipe(name)


@recipes_app.command("copy")
def recipes_copy(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    to: Annotated[
        str | None, typer.Argument(metavar="FILE", help="Where to; by default NAME's last part.")
    ] = None,
) -> None:
    """Copy a built-in recipe; never over another file."""
    from ftkit.tasks.recipes import copy_recipe

    copy_recipe(name, to)
