"""From a YAML file to a valid recipe: ``extends``, ``KEY=VALUE``, and all that is wrong at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ftkit.core.errors import Fault, UserError, user_error
from ftkit.recipe import schema
from ftkit.recipe.builtin import find_recipe
from ftkit.recipe.faults import Located, faults_of, located
from ftkit.recipe.nodes import COMMAND_LINE, Node, Part, find, join, merge, plain, put, split
from ftkit.recipe.rules import Said, faults_between_sections, unread
from ftkit.recipe.tree import Recipe
from ftkit.recipe.yaml_file import parse


@dataclass(frozen=True)
class Loaded:
    """A valid recipe, and where each of its values came from.

    Attributes:
        recipe: what a run reads.
        file: the file that was loaded.
        tree: what was written, each value with its place.
    """

    recipe: Recipe
    file: Path
    tree: Node

    def origin(self, path: str) -> str:
        """Return where a value was set: ``file:line:column``, ``command line`` or ``default``."""
        node = find(self.tree, split(path, self.tree))
        if node is None:
            return "default"
        return str(node.key if isinstance(node.value, dict | tuple) else node.at)

    def fault(self, path: str, found: str, remedy: str = "") -> Fault:
        """Return a fault placed at the value of a dotted path, or at the map it is missing from."""
        return located(self.tree, split(path, self.tree), found, remedy)[1]

    def resolved(self) -> dict[str, Any]:
        """Return the whole recipe, defaults included, in dicts, lists and scalars.

        Only constants that this run would not read are left out, since no recipe may set them.
        """
        tree: dict[str, Any] = self.recipe.model_dump(mode="json")
        for path, _ in list(unread(Said(tree))):
            *section, key = path.split(".")
            here: Any = tree
            for part in section:
                here = here[int(part)] if isinstance(here, list) else (here or {}).get(part)
            if isinstance(here, dict):
                here.pop(key, None)
        return tree


def load_recipe(path: str, overrides: Sequence[str] = ()) -> Loaded:
    """Read a recipe.

    Args:
        path: a file, or the name of a built-in recipe.
        overrides: ``KEY=VALUE`` each: a dotted path, and a value in YAML that takes the place of
            what the recipe says there; of two for one key the later counts.

    Raises:
        UserError: with every fault of the recipe.
    """
    faults: list[Fault] = []
    file = find_recipe(path)
    try:
        tree = _read(file, (), faults)
    except UserError as error:
        raise UserError([*faults, *error.faults]) from error
    for override in overrides:
        tree = _overridden(tree, override, faults)
    tree = _without_nulls(tree, (), plain(tree))
    recipe, more = _validated(tree)
    faults += more
    if faults or recipe is None:
        raise UserError(sorted(faults, key=_order))
    return Loaded(recipe, file, tree)


def _read(file: Path, chain: tuple[Path, ...], faults: list[Fault]) -> Node:
    """Return what a file says, with what it extends below it."""
    name = _shown(file)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise user_error(name, f"not UTF-8, at byte {error.start}", "save it so") from error
    except OSError as error:
        raise user_error(name, f"cannot be read: {error.strerror}") from error
    tree = parse(text, name, faults)
    if tree is None or not isinstance(tree.value, dict):
        found = "empty" if tree is None else "not a map at the top"
        raise user_error(f"{name}:1:1", found, "write keys and values, as in 'run: runs/a'")
    if "extends" not in tree.value:
        return tree
    rest = dict(tree.value)
    extends = rest.pop("extends")
    tree = replace(tree, value=rest)
    place = f"{extends.at} extends"
    if not isinstance(extends.value, str):
        remedy = "write a file, relative to this one, or the name of a built-in recipe"
        faults.append(Fault(place, "no text", remedy))
        return tree
    base = find_recipe(extends.value, beside=file.parent, place=place)
    seen = [*(each.resolve() for each in chain), file.resolve()]
    if base.resolve() in seen:
        start = seen.index(base.resolve())
        circle = " -> ".join(_shown(each) for each in [*(*chain, file)[start:], base])
        raise user_error(place, f"a cycle: {circle}", "let one of them extend nothing")
    return merge(_read(base, (*chain, file), faults), tree)


def _shown(file: Path) -> str:
    """Return the path as a person types it: relative where it lies below the working directory."""
    whole = file.resolve()
    return str(whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else file)


def _overridden(tree: Node, override: str, faults: list[Fault]) -> Node:
    key, equals, text = override.partition("=")
    place = f"{COMMAND_LINE} {key}"
    if not equals or not key:
        found = f"'{override}' is no KEY=VALUE"
        faults.append(Fault(str(COMMAND_LINE), found, "write it as in train.lr=1e-4"))
        return tree
    own: list[Fault] = []
    try:
        value = parse(text, str(COMMAND_LINE), own, COMMAND_LINE)
        node = value or Node(None, COMMAND_LINE, COMMAND_LINE)
        tree = put(tree, _parts(key, tree), replace(node, key=COMMAND_LINE))
    except UserError as error:
        own += error.faults
    faults += [Fault(place, each.found, each.remedy) for each in own]
    return tree


def _parts(key: str, tree: Node) -> tuple[Part, ...]:
    """Cut an override's key; below a map that takes any key, the rest is one."""
    parts = split(key, tree)
    for depth in range(1, len(parts) - 1):
        if schema.is_free(schema.at(parts[:depth], plain(tree))):
            return (*parts[:depth], join(parts[depth:]))
    return parts


def _without_nulls(node: Node, parts: tuple[Part, ...], tree: Any) -> Node:
    """Take away each value that an extended recipe sets and null replaces.

    Where null is a value itself (``max_grad_norm: null``) it stays.
    """
    if isinstance(node.value, tuple):
        items = (_without_nulls(each, (*parts, i), tree) for i, each in enumerate(node.value))
        return replace(node, value=tuple(items))
    if not isinstance(node.value, dict):
        return node
    kept: dict[str, Node] = {}
    for key, each in node.value.items():
        here = (*parts, key)
        wanted = schema.at(here, tree) if each.takes_away else None
        if wanted is None or schema.takes_null(wanted):
            kept[key] = _without_nulls(each, here, tree)
    return replace(node, value=kept)


def _validated(tree: Node) -> tuple[Recipe | None, list[Fault]]:
    """Return the recipe, or what is wrong with its sections, and between them."""
    values = plain(tree)
    found: list[Located] = []
    recipe: Recipe | None = None
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        found = faults_of(error, tree)
    wrong = [path for path, _ in found]
    between: dict[str, Fault] = {}
    for fault in faults_between_sections(Said(values)):
        between.setdefault(fault.place, fault)
    for fault in between.values():
        path = split(fault.place, tree)
        if not any(path[: len(other)] == other for other in wrong):  # else it is said already
            found.append(located(tree, path, fault.found, fault.remedy))
    return recipe, [fault for _, fault in found]


def _order(fault: Fault) -> tuple[str, int, int]:
    match = re.match(r"(.*?):(\d+):(\d+)", fault.place)
    file = match[1] if match else fault.place
    return (file, int(match[2]), int(match[3])) if match else (file, 0, 0)
