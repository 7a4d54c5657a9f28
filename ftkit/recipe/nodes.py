"""The tree of a YAML file in which every value knows its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ftkit.core.errors import user_error

Scalar = str | int | float | bool | None
Part = str | int
"""One step of a path: a key of a map, an index of a list."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something is written; lines and columns count from 1."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """Return ``file:line:column``, which editors and terminals open.

        >>> str(Place("sft.yaml", 12, 3)), str(COMMAND_LINE)
        ('sft.yaml:12:3', 'command line')
        """
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


COMMAND_LINE = Place("command line")
"""The place of every value that ``KEY=VALUE`` gave."""


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its place.

    Attributes:
        value: a scalar, a map or a list of nodes.
        at: where the value begins.
        key: where its key stands; for what has none, where the value begins.
        text: a scalar as it was written.
        takes_away: a null written over another recipe's value.
    """

    value: Scalar | dict[str, Node] | tuple[Node, ...]
    at: Place
    key: Place
    text: str = ""
    takes_away: bool = False


def plain(node: Node) -> Any:
    """Return the value alone: dicts, lists and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, tuple):
        return [plain(child) for child in node.value]
    return node.value


def child(node: Node, part: Part) -> Node | None:
    """Return the value under a key or an index, or None."""
    if isinstance(node.value, dict):
        return node.value.get(str(part))
    if isinstance(node.value, tuple) and isinstance(part, int) and 0 <= part < len(node.value):
        return node.value[part]
    return None


def find(root: Node, parts: Sequence[Part]) -> Node | None:
    """Return the value at a path, or None."""
    node: Node | None = root
    for part in parts:
        node = child(node, part) if node else None
    return node


def nearest(root: Node, parts: Sequence[Part]) -> Node:
    """Return the value at a path, or the innermost one around it that is written."""
    node = root
    for part in parts:
        inner = child(node, part)
        if inner is None:
            break
        node = inner
    return node


def split(path: str, root: Node) -> tuple[Part, ...]:
    """Cut a dotted path into keys and indices of the tree.

    A key may hold dots itself (``train.until.eval.loss``): where the tree has such a key, it is
    taken whole.
    """
    words = path.split(".")
    parts: list[Part] = []
    node: Node | None = root
    while words:
        size = 1
        if node and isinstance(node.value, dict):
            whole = (n for n in range(len(words), 0, -1) if ".".join(words[:n]) in node.value)
            size = next(whole, 1)
        word = ".".join(words[:size])
        in_list = node is not None and isinstance(node.value, tuple) and word.isdecimal()
        parts.append(int(word) if in_list else word)
        node = child(node, parts[-1]) if node else None
        words = words[size:]
    return tuple(parts)


def join(parts: Sequence[Part]) -> str:
    """Return the dotted path.

    >>> join(("data", "train", 0, "path"))
    'data.train.0.path'
    """
    return ".".join(map(str, parts))


def flatten(tree: Any, before: tuple[Part, ...] = ()) -> dict[str, Any]:
    """Return each value of dicts and lists by its dotted path; lists of scalars stay whole.

    >>> flatten({"train": {"lr": 0.1, "betas": [0.9, 0.99]}, "until": {}})
    {'train.lr': 0.1, 'train.betas': [0.9, 0.99], 'until': {}}
    """
    parts: list[tuple[Part, Any]] = []
    if isinstance(tree, dict):
        parts = list(tree.items())
    elif isinstance(tree, list) and any(isinstance(item, dict | list) for item in tree):
        parts = list(enumerate(tree))
    if not parts:
        return {join(before): tree}
    return {
        path: value
        for part, inner in parts
        for path, value in flatten(inner, (*before, part)).items()
    }


def merge(base: Node, over: Node) -> Node:
    """Return ``base`` with what ``over`` says in its stead.

    Maps merge key by key; a list, a scalar or null replaces.  A map that changes its ``name``
    replaces too: the constants of one method say nothing about another.
    """
    if not isinstance(over.value, dict) or not isinstance(base.value, dict):
        return replace(over, takes_away=over.value is None)
    old, new = base.value.get("name"), over.value.get("name")
    if old and new and old.value != new.value:
        return over
    both = dict(base.value)
    for key, node in over.value.items():
        both[key] = merge(both[key], node) if key in both else node
    return replace(over, value=both)


def put(root: Node, parts: Sequence[Part], node: Node) -> Node:
    """Return the tree with another value at a path; maps on the way are made.

    Raises:
        UserError: the path leads through a scalar or past a list's end.
    """
    return _put(root, tuple(parts), 0, node)


def _put(here: Node, parts: tuple[Part, ...], depth: int, node: Node) -> Node:
    if depth == len(parts):
        return replace(node, takes_away=node.value is None)
    part = parts[depth]
    if here.value is None:
        here = replace(here, value={}, at=COMMAND_LINE)
    _refuse_detour(here, parts, depth)
    inner = child(here, part) or Node(None, COMMAND_LINE, COMMAND_LINE)
    changed = _put(inner, parts, depth + 1, node)
    if isinstance(here.value, tuple):
        items = tuple(changed if i == part else item for i, item in enumerate(here.value))
        return replace(here, value=items)
    assert isinstance(here.value, dict)
    return replace(here, value={**here.value, str(part): changed})


def _refuse_detour(here: Node, parts: tuple[Part, ...], depth: int) -> None:
    """Raise where a map or list is asked for a part that it cannot have."""
    part, place = parts[depth], f"{COMMAND_LINE} {join(parts)}"
    if isinstance(here.value, tuple):
        if not isinstance(part, int) or part >= len(here.value):
            found = f"{join(parts[:depth])} is a list of {len(here.value)}, without '{part}'"
            raise user_error(place, found, "write an index, from 0 on, or the whole list")
    elif not isinstance(here.value, dict):
        path = join(parts[:depth])
        raise user_error(place, f"{path} is {here.text}, not a map", f"write {path}=VALUE")
