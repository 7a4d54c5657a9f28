"""The recipe reference, ``docs/recipe.md``, written from the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ftkit.recipe.schema import Schema, recipe_schema, variants, wants

_HEAD = """\
# Recipe reference

<!-- Written by scripts/make_reference.py from the code; `make docs` writes it anew. -->

A recipe is one YAML file that says a whole run. `ftkit check RECIPE` says whether it is valid,
`ftkit config RECIPE` shows every value and where it came from, `ftkit schema` prints a JSON schema
for editors ([recipe.schema.json](recipe.schema.json)).

- **Paths** are relative to the directory in which the command runs.
- **`extends: OTHER`** at the top starts from another recipe: a file, relative to the one that says
  so, or the name of a built-in recipe (`ftkit recipes list`). Maps merge key by key; lists and
  scalars replace. A map that changes its `name` replaces the other's: the constants of one method
  say nothing about another. `null` takes a value away; where null is a value itself, as in
  `max_grad_norm`, it is that value.
- **`KEY=VALUE`** after the recipe on the command line takes the place of one value, as if the file
  said so: `train.lr=1e-4`, `data.train.0.weight=2`, `method='{name: pretrain}'`. VALUE is YAML. Of
  two for one key the later counts.
- **YAML** is that of version 1.2: `1e-4` is a number, `no` and `on` are text, `010` is ten, a date
  is text. A key that stands twice is an error, and so is a tag. Anchors and `<<` work.
- **What a run would not read cannot be set:** `momentum` with `optimizer: adamw` is an error.
"""


def render() -> str:
    """Return the Markdown of the reference."""
    parts = [_HEAD, "## The whole\n", _table(recipe_schema())]
    for paths, section in _sections().values():
        heading = " and ".join(f"`{path}`" for path in paths)
        about = section.get("description", "").split("\n\n")[0]
        parts += [f"\n## {heading}\n", f"{_one_line(about)}\n", _table(section)]
    return "\n".join(parts)


def _sections() -> dict[str, tuple[list[str], Schema]]:
    """Return every section below the top, with the paths at which it may stand."""
    found: dict[str, tuple[list[str], Schema]] = {}
    for path, section in _walk(recipe_schema(), ""):
        found.setdefault(section["title"], ([], section))[0].append(path)
    return found


def _walk(schema: Schema, before: str) -> Iterator[tuple[str, Schema]]:
    for key, below in schema["properties"].items():
        for variant in variants(below):
            path, section = f"{before}{key}", variant
            if variant.get("type") == "array" and "items" in variant:
                path, section = f"{path}.0", variants(variant["items"])[0]
            if "properties" in section:
                name = section["properties"].get("name", {}).get("const")
                yield f"{path}: {{name: {name}}}" if name else path, section
                yield from _walk(section, f"{path}.")


def _table(section: Schema) -> str:
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, schema in section["properties"].items():
        required = key in section.get("required", [])
        default = "required" if required else f"`{_default(schema)}`"
        value = wants(schema, named=False)
        meaning = _one_line(schema.get("description", "")).replace("|", "\\|")
        rows.append(f"| `{key}` | {value} | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def _default(schema: Schema) -> str:
    """Return the default as YAML says it; of a whole section, no key of it."""
    value = schema.get("default", {})
    return "{}" if isinstance(value, dict) else json.dumps(value)


def _one_line(text: str) -> str:
    return " ".join(text.split())
