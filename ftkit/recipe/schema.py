"""The recipe's JSON schema, and questions about it: which keys there are, what a key wants.

One description serves error messages, the reference and editors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache
from typing import Any

from ftkit.recipe.nodes import Part
from ftkit.recipe.tree import Recipe

Schema = Mapping[str, Any]


@cache
def recipe_schema() -> Schema:
    """Return the JSON schema of a resolved recipe."""
    return Recipe.model_json_schema()


def resolve(schema: Schema) -> Schema:
    """Follow a reference."""
    if "$ref" in schema:
        return dict(recipe_schema()["$defs"][schema["$ref"].rsplit("/", 1)[1]])
    return schema


def variants(schema: Schema) -> list[Schema]:
    """Return the alternatives of a union, unions in it taken apart, or the one that there is."""
    schema = resolve(schema)
    branches = schema.get("anyOf") or schema.get("oneOf")
    return [one for branch in branches for one in variants(branch)] if branches else [schema]


def inner(schema: Schema, part: Part, value: Any = None) -> Schema | None:
    """Return the schema under a key or an index.

    Args:
        schema: of a map or list, or a union.
        part: the key or index.
        value: what stands in the recipe there; its ``name`` picks one method of several.
    """
    for variant in fitting(schema, value):
        if isinstance(part, int):
            prefix = variant.get("prefixItems", [])
            found = prefix[part] if part < len(prefix) else variant.get("items")
        else:
            found = variant.get("properties", {}).get(part) or variant.get("additionalProperties")
        if isinstance(found, Mapping):
            return found
    return None


def fitting(schema: Schema, value: Any) -> list[Schema]:
    """Return the alternatives that a map's ``name`` allows; all, where it names none of them."""
    name = value.get("name") if isinstance(value, Mapping) else None
    every = variants(schema)
    named = [one for one in every if one.get("properties", {}).get("name", {}).get("const") == name]
    return named if name is not None and named else every


def at(parts: Sequence[Part], tree: Any) -> Schema | None:
    """Return the schema of a path, given the recipe's values."""
    schema: Schema | None = recipe_schema()
    for part in parts:
        if schema is None:
            return None
        schema = inner(schema, part, tree)
        known = isinstance(tree, dict) or (isinstance(tree, list) and isinstance(part, int))
        try:
            tree = tree[part] if known else None
        except LookupError:
            tree = None
    return schema


def keys(schema: Schema | None, value: Any = None) -> list[str]:
    """Return the keys that a map may have; of a free map, none."""
    if schema is None:
        return []
    found = [key for variant in fitting(schema, value) for key in variant.get("properties", {})]
    return list(dict.fromkeys(found))


def names(schema: Schema | None) -> list[str]:
    """Return the words of which one must stand here: a literal's, or those that name a method."""
    found: list[str] = []
    for one in variants(schema) if schema else []:
        known = one.get("properties", {}).get("name", one)
        found += known.get("enum", [known["const"]] if "const" in known else [])
    return found


def is_free(schema: Schema | None) -> bool:
    """Whether a map takes any key, each with a scalar."""
    if schema is None:
        return False
    others = [variant.get("additionalProperties") for variant in variants(schema)]
    return any(isinstance(other, Mapping) and "type" in other for other in others)


def takes_null(schema: Schema | None) -> bool:
    """Whether null is a value of its own here."""
    return schema is not None and any(one.get("type") == "null" for one in variants(schema))


@cache
def key_paths() -> tuple[str, ...]:
    """Return the dotted path of every key that is not in a list."""

    def walk(schema: Schema, before: str) -> Iterator[str]:
        for variant in variants(schema):
            for key, below in variant.get("properties", {}).items():
                yield f"{before}{key}"
                yield from walk(below, f"{before}{key}.")

    return tuple(dict.fromkeys(walk(recipe_schema(), "")))


def wants(schema: Schema | None, *, named: bool = True) -> str:
    """Return in words what may stand here; ``named`` lists the keys of a map.

    >>> wants({"type": "number", "exclusiveMinimum": 0})
    'a number above 0'
    >>> wants({"anyOf": [{"enum": ["a", "b"]}, {"type": "null"}]})
    'one of a, b, or null'
    """
    if schema is None:
        return "another value"
    words = list(dict.fromkeys(_words(variant, named) for variant in variants(schema)))
    if words[-1] != "null" or len(words) == 1:
        return " or ".join(words)
    return " or ".join(words[:-1]) + ", or null"


def _words(schema: Schema, named: bool) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    kind = str(schema.get("type", ""))
    if kind == "array":
        items = schema.get("prefixItems", [])
        size = f" of {len(items)}" if items else ""
        return f"a list{size}, each {wants((items or [schema['items']])[0], named=named)}"
    if kind == "object":
        keys_of_it = schema.get("properties", {})
        name = keys_of_it.get("name", {}).get("const")
        known = " of " + ", ".join(keys_of_it) if keys_of_it and named else ""
        return f"{{name: {name}}}" if name else f"a map{known}"
    return _KINDS.get(kind, kind) + _limits(schema)


_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
}


def _limits(schema: Schema) -> str:
    words = {
        "exclusiveMinimum": "above",
        "minimum": "of at least",
        "exclusiveMaximum": "below",
        "maximum": "at most",
    }
    found = [f"{word} {schema[key]:g}" for key, word in words.items() if key in schema]
    return "".join(f" {each}" if i == 0 else f" and {each}" for i, each in enumerate(found))


def editor_schema() -> dict[str, Any]:
    """Return the JSON schema by which editors complete and check recipe files.

    A file may extend another one, so that no key must stand in it; what is missing from the whole
    is for ``ftkit check`` to say.
    """
    schema: dict[str, Any] = deepcopy(dict(recipe_schema()))
    for section in schema["$defs"].values():
        section.pop("required", None)
    for section in schema["properties"].values():
        for union in (section, *section.get("anyOf", ())):
            if "oneOf" in union:
                union["anyOf"] = union.pop("oneOf")
                union.pop("discriminator", None)
    whole = schema.pop("required")
    extends = {
        "type": "string",
        "description": "The recipe that this one changes: a file, relative to this one, or the "
        "name of a built-in recipe.",
    }
    schema["properties"] = {"extends": extends, **schema["properties"]}
    schema["anyOf"] = [{"required": ["extends"]}, {"required": whole}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
