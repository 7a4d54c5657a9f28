"""What was meant by a key that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from ftkit.core.errors import Fault
from ftkit.recipe import schema
from ftkit.recipe.aliases import ALIASES
from ftkit.recipe.nodes import Node, Part, find, join


def closest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the known word that looks most like this one, or nothing.

    Args:
        word: what was written.
        known: what could have been meant.
        cutoff: how much alike the two must be, from 0 to 1 (difflib's ratio).

    >>> closest("cosin", ["constant", "linear", "cosine"]), closest("Max-Length", ["max_length"])
    ('cosine', 'max_length')
    """
    by_form = {_form(each): each for each in known}
    near = get_close_matches(_form(word), by_form, n=1, cutoff=cutoff)
    return by_form[near[0]] if near else ""


def unknown_key(root: Node, tree: Any, path: tuple[Part, ...]) -> Fault:
    """Return the fault of a key that its map does not have."""
    parent, key = path[:-1], str(path[-1])
    node, section = find(root, path), find(root, parent)
    place = (node or section or root).key
    value = plain_at(tree, parent)
    here = schema.keys(schema.at(parent, tree), value)
    return Fault(f"{place} {join(path)}", *_advice(parent, key, here, tree))


def plain_at(tree: Any, path: Iterable[Part]) -> Any:
    """Return the value at a path of plain dicts and lists."""
    for part in path:
        tree = tree[part]
    return tree


def _form(key: str) -> str:
    return key.lower().replace("-", "_")


def _advice(parent: tuple[Part, ...], key: str, here: list[str], tree: Any) -> tuple[str, str]:
    """Return what was found and what to do: the surest guess first."""
    unknown = "unknown key"
    if ":" in key:
        name, value = key.split(":", 1)
        return f"'{key}' has no value", f"write a space after the colon: {name}: {value}"
    if _form(key) in here:
        return unknown, f"write '{_form(key)}'"
    if key in _constants_of_others(parent, here):
        return f"no constant of '{tree['method']['name']}'", "remove it, or take another method"
    guesses = (
        _alias(parent, _form(key)),
        _question([closest(key, here, 0.7)]),
        _elsewhere(_form(key)),
        _alias(parent, closest(key, ALIASES, 0.8)),
        _elsewhere(closest(key, _leaves(), 0.85)),
        f"the keys here are {', '.join(here)}",
    )
    return unknown, next(guess for guess in guesses if guess)


def _alias(parent: tuple[Part, ...], key: str) -> str:
    return _instead(parent, *ALIASES[key]) if key in ALIASES else ""


def _question(names: list[str]) -> str:
    quoted = " or ".join(f"'{name}'" for name in names if name)
    return f"did you mean {quoted}?" if quoted else ""


def _elsewhere(key: str) -> str:
    """Return where our key of this name really stands."""
    return _question([path for path in schema.key_paths() if path.rsplit(".", 1)[-1] == key])


def _leaves() -> list[str]:
    return [path.rsplit(".", 1)[-1] for path in schema.key_paths()]


def _instead(parent: tuple[Part, ...], target: str, note: str) -> str:
    if not target:
        return f"remove it: {note}"
    section, _, key = target.rpartition(".")
    words = f"did you mean '{key}'?" if section == join(parent) else f"write {target}"
    return f"{words} ({note})" if note else words


def _constants_of_others(parent: tuple[Part, ...], here: list[str]) -> list[str]:
    """Return the constants of the methods that this recipe does not name."""
    if parent != ("method",):
        return []
    return [key for key in schema.keys(schema.at(parent, {})) if key not in here]
