"""What pydantic finds wrong, in our words: all at once, each with its place and a remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from pydantic import ValidationError

from ftkit.core.errors import Fault
from ftkit.recipe import schema
from ftkit.recipe.nodes import Node, Part, child, find, join, nearest, plain
from ftkit.recipe.suggest import closest, unknown_key

Detail = Mapping[str, Any]
Located = tuple[tuple[Part, ...], Fault]
"""The path of a fault, and the fault, placed."""

_RANGE = ("greater_than", "less_than", "too_", "string_too", "finite_number")
_KINDS = {str: "text", int: "a number", float: "a number", bool: "a boolean"}
_BOOLEANS = dict.fromkeys(("yes", "on", "y"), "true") | dict.fromkeys(("no", "off", "n"), "false")


def faults_of(error: ValidationError, root: Node) -> list[Located]:
    """Return one fault for each thing that is wrong with a recipe's values."""
    tree = plain(root)
    details = [(*_path(root, detail), detail) for detail in error.errors(include_url=False)]
    return [_fault(root, tree, path, detail) for path, detail in _one_branch(details)]


def located(root: Node, parts: Sequence[Part], found: str, remedy: str = "") -> Located:
    """Return a fault at a path: where its value stands, or else the map that it is missing from."""
    node = find(root, parts)
    if node is None:
        place = nearest(root, parts).key
    else:
        place = node.key if isinstance(node.value, dict | tuple) else node.at
    return tuple(parts), Fault(f"{place} {join(parts)}".rstrip(), found, remedy)


def _path(root: Node, detail: Detail) -> tuple[tuple[Part, ...], tuple[int, str] | None]:
    """Return the path in the tree; and, of a branch of a union, the depth and pydantic's name.

    Pydantic's location holds the names of branches between the keys; what is neither a key nor an
    index of the tree is one.
    """
    location = list(detail["loc"])
    last = [location.pop()] if detail["type"] in ("missing", "extra_forbidden") else []
    parts: list[Part] = []
    branch: tuple[int, str] | None = None
    node: Node | None = root
    for part in location:
        inner = child(node, part) if node else None
        if inner is not None:
            parts.append(part)
            node = inner
        elif branch is None:
            branch = (len(parts), str(part))
    return (*parts, *last), branch


def _one_branch(
    details: Iterable[tuple[tuple[Part, ...], tuple[int, str] | None, Detail]],
) -> Iterator[tuple[tuple[Part, ...], Detail]]:
    """Keep, of a union's branches, the one that fits best: its errors are what is wrong."""

    def union(item: tuple[tuple[Part, ...], tuple[int, str] | None, Detail]) -> tuple[Part, ...]:
        path, branch, _ = item
        return ("union", *path[: branch[0]]) if branch else ("plain", *path)

    for _, group in groupby(details, key=union):
        branches: dict[str, list[tuple[tuple[Part, ...], Detail]]] = {}
        depth = 0
        for path, branch, detail in group:
            name = ""
            if branch:
                depth, name = branch
            branches.setdefault(name, []).append((path, detail))
        yield from min(branches.values(), key=lambda errors: _misfit(errors, depth))


def _misfit(errors: list[tuple[tuple[Part, ...], Detail]], depth: int) -> tuple[bool, int, int]:
    """Rank a branch: by its type being another; by keys unknown or missing; by its errors."""
    at_root = any(len(path) == depth for path, _ in errors)
    keys = sum(detail["type"] in ("missing", "extra_forbidden") for _, detail in errors)
    return at_root, keys, len(errors)


def _fault(root: Node, tree: Any, path: tuple[Part, ...], detail: Detail) -> Located:
    kind, wanted = detail["type"], schema.at(path, tree)
    if kind == "extra_forbidden":
        return path, unknown_key(root, tree, path)
    if kind.startswith("union_tag"):
        path = (*path, "name")
    node = find(root, path)
    if node is None:
        return located(root, path, "missing", f"write {schema.wants(wanted)}")
    if kind in ("literal_error", "union_tag_invalid"):
        return located(root, path, *_not_one_of(node, [str(name) for name in schema.names(wanted)]))
    return located(root, path, _found(node, kind), _remedy(node, wanted))


def _not_one_of(node: Node, known: Sequence[str]) -> tuple[str, str]:
    near = closest(node.text, known)
    guess = f"; did you mean '{near}'?" if near else ""
    one_of = "one of " if len(known) > 1 else ""
    return f"{_shown(node)} is unknown", f"write {one_of}{', '.join(known)}{guess}"


def _shown(node: Node) -> str:
    if isinstance(node.value, dict | tuple):
        return "a map" if isinstance(node.value, dict) else "a list"
    return repr(node.value) if isinstance(node.value, str) else node.text


def _found(node: Node, kind: str) -> str:
    if node.value is None:
        return "null, which is no value"
    if isinstance(node.value, dict | tuple):
        return f"{_shown(node)} of {len(node.value)}"
    if kind.startswith(_RANGE):
        return f"{_shown(node)} is out of range"
    return f"{_shown(node)} is {_KINDS[type(node.value)]}"


def _remedy(node: Node, wanted: schema.Schema | None) -> str:
    """Return what to write and, where it is plain what was meant, that."""
    words, value = schema.wants(wanted), node.value
    if isinstance(value, str):
        meant = _BOOLEANS.get(value.lower(), "") if "true or false" in words else ""
        digits = re.sub(r"[_,\s]", "", value)
        if "number" in words and re.fullmatch(r"[-+]?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?", digits):
            meant = f"{digits}, without quotes"
    else:
        number = isinstance(value, int | float) and "text" in words
        meant = f'"{node.text}", in quotes' if number else ""
    return f"write {words}: {meant}" if meant else f"write {words}"
