"""Write docs/recipe.md and docs/recipe.schema.json from the code."""

from __future__ import annotations

import json
from pathlib import Path

from ftkit.recipe.reference import render
from ftkit.recipe.schema import editor_schema

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    """Write both files."""
    (DOCS / "recipe.md").write_text(render(), encoding="utf-8")
    schema = json.dumps(editor_schema(), indent=2, ensure_ascii=False)
    (DOCS / "recipe.schema.json").write_text(schema + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
