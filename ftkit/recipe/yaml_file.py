"""YAML without its traps: text to a tree of nodes, and back.

The values are those of YAML 1.2's core schema: ``1e-4`` is a number, ``no`` and ``on`` are text,
``010`` is ten, a date is text.  A key that stands twice, a tag, a key that is no text: errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import yaml

from ftkit.core.errors import Fault, UserError
from ftkit.recipe.nodes import Node, Place, Scalar
from ftkit.recipe.syntax import character_fault, syntax_fault

_CORE = "tag:yaml.org,2002:"
_NULL, _BOOL, _INT, _FLOAT, _STR, _MERGE = (
    _CORE + kind for kind in ("null", "bool", "int", "float", "str", "merge")
)
_Rule = tuple[str, re.Pattern[str]]
_RULES: tuple[tuple[str, str, str], ...] = (
    (_NULL, r"(?:~|null|Null|NULL)", "~nN"),
    (_BOOL, r"(?:true|True|TRUE|false|False|FALSE)", "tTfF"),
    (_INT, r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)", "-+0123456789"),
    (_FLOAT, r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    (_FLOAT, r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))", "-+."),
    (_MERGE, r"<<", "<"),
)
"""Tag, pattern and possible first characters of what stands without quotes (YAML 1.2, 10.3.2)."""


def _resolvers(besides: Mapping[str, list[_Rule]] = MappingProxyType({})) -> dict[str, list[_Rule]]:
    table = {first: list(rules) for first, rules in besides.items()}
    table.setdefault("", []).append((_NULL, re.compile(r"\Z")))
    for tag, pattern, firsts in _RULES:
        compiled = re.compile(pattern + r"\Z")
        for first in firsts:
            table.setdefault(first, []).append((tag, compiled))
    return table


class _Loader(yaml.SafeLoader):
    """PyYAML's scanner, parser and composer, with the core schema's values and no tags."""

    yaml_implicit_resolvers = _resolvers()

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.tags: list[tuple[yaml.Mark, str]] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Note a tag and read on as if it were not there."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if tag := getattr(event, "tag", None):
            self.tags.append((event.start_mark, tag.replace(_CORE, "!!")))
            event.tag = None
            event.implicit = (True, False) if isinstance(event, yaml.ScalarEvent) else True
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Quotes all text that either version of YAML would read as something else."""

    yaml_implicit_resolvers = _resolvers(yaml.SafeDumper.yaml_implicit_resolvers)

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Escape the line breaks that YAML would fold, which PyYAML takes for plain text."""
        style = '"' if any(mark in data for mark in "\x85\u2028\u2029") else None
        return self.represent_scalar(_STR, data, style)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  (PyYAML's signature)
        return True


_Dumper.add_representer(str, _Dumper.represent_str)


def dump_yaml(tree: Any) -> str:
    r"""Return the YAML of dicts, lists and scalars; ``parse`` gives back the same.

    >>> dump_yaml({"lr": 0.0001, "name": "no", "revision": "1e5"})
    "lr: 0.0001\nname: 'no'\nrevision: '1e5'\n"
    """
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def parse(text: str, file: str, faults: list[Fault], at: Place | None = None) -> Node | None:
    """Return the tree of a YAML text.

    Args:
        text: one document.
        file: what places are called.
        faults: gets what is wrong and does not stop the reading (a key twice, a tag).
        at: the place of every value; by default each has its own.

    Returns:
        The tree; None for a text without a value.

    Raises:
        UserError: the text is not YAML.
    """
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise UserError(syntax_fault(error, file, at)) from error
    except yaml.reader.ReaderError as error:
        raise UserError(character_fault(error, text, file, at)) from error
    tree = _Tree(file, faults, at)
    for mark, tag in loader.tags:
        tree.fault(tree.place(mark), f"the tag '{tag}'", "recipes have no tags; remove it")
    return tree.node(root) if root else None


class _Tree:
    """Turns PyYAML's nodes into ours."""

    def __init__(self, file: str, faults: list[Fault], at: Place | None) -> None:
        self.file = file
        self.faults = faults
        self.at = at
        self.open: list[yaml.Node] = []

    def place(self, mark: yaml.Mark) -> Place:
        return self.at or Place(self.file, mark.line + 1, mark.column + 1)

    def fault(self, place: Place, found: str, remedy: str) -> None:
        self.faults.append(Fault(str(place), found, remedy))

    def node(self, source: yaml.Node) -> Node:
        place = self.place(source.start_mark)
        if source in self.open:
            self.fault(place, "this value holds itself, by an alias", "write the value out")
            return Node(None, place, place)
        self.open.append(source)
        try:
            if isinstance(source, yaml.MappingNode):
                return Node(self.map(source), place, place)
            if isinstance(source, yaml.SequenceNode):
                return Node(tuple(self.node(item) for item in source.value), place, place)
            assert isinstance(source, yaml.ScalarNode)
            return Node(self.scalar(source, place), place, place, source.value)
        finally:
            self.open.pop()

    def map(self, source: yaml.MappingNode) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in source.value:
            place = self.place(key.start_mark)
            if key.tag == _MERGE:
                merged = {**self.merged(value), **merged}
                continue
            if key.tag != _STR:
                shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or map"
                self.fault(place, f"{shown} stands as a key", "keys are text; put it in quotes")
                continue
            node = replace(self.node(value), key=place)
            if key.value in own:
                first = own[key.value].key
                self.fault(place, f"the key '{key.value}' is already at {first}", "remove one")
                continue
            own[key.value] = node
        return {**merged, **own}

    def merged(self, source: yaml.Node) -> dict[str, Node]:
        """Return the keys that ``<<:`` brings; of several maps the first wins."""
        node = self.node(source)
        maps = node.value if isinstance(node.value, tuple) else (node,)
        keys: dict[str, Node] = {}
        for each in maps:
            if isinstance(each.value, dict):
                keys = {**each.value, **keys}
            else:
                self.fault(each.at, "'<<' merges no map", "write '<<: *anchor' of a map")
        return keys

    def scalar(self, source: yaml.ScalarNode, place: Place) -> Scalar:
        text: str = source.value
        try:
            return _SCALARS.get(source.tag, str)(text)
        except ValueError:  # Python reads no integer of more than 4300 digits
            self.fault(place, f"a number of {len(text)} digits", "write a shorter one")
            return text


def _int(text: str) -> int:
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_SCALARS: dict[str, Callable[[str], Scalar]] = {
    _NULL: lambda _: None,
    _BOOL: lambda text: text.lower() == "true",
    _INT: _int,
    _FLOAT: _float,
}
