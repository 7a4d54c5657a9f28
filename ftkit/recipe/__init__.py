"""The YAML file: one frozen tree, with the place of every value."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftkit.recipe.builtin import builtin_recipes
    from ftkit.recipe.files import missing_files, require_files, require_method
    from ftkit.recipe.load import Loaded, load_recipe
    from ftkit.recipe.nodes import flatten
    from ftkit.recipe.tree import Recipe
    from ftkit.recipe.yaml_file import dump_yaml

__all__ = [
    "Loaded",
    "Recipe",
    "builtin_recipes",
    "dump_yaml",
    "flatten",
    "load_recipe",
    "missing_files",
    "require_files",
    "require_method",
]

_HOMES = {
    "Loaded": "load",
    "Recipe": "tree",
    "builtin_recipes": "builtin",
    "dump_yaml": "yaml_file",
    "flatten": "nodes",
    "load_recipe": "load",
    "missing_files": "files",
    "require_files": "files",
    "require_method": "files",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: ``--help`` needs none of them."""
    if name not in _HOMES:
        raise AttributeError(name)
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
