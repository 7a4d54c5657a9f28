"""The schema: what editors get, what the reference says, and that both are current."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ftkit.core.section import Section, field_docs
from ftkit.objectives import METHODS
from ftkit.recipe import Recipe, load_recipe
from ftkit.recipe.methods import method_lines
from ftkit.recipe.reference import render
from ftkit.recipe.schema import editor_schema, key_paths, recipe_schema

DOCS = Path(__file__).parents[2] / "docs"
NOW = "run `make docs`"


def sections(of=Section):
    for section in of.__subclasses__():
        if section.__module__.startswith("ftkit."):
            yield section
        yield from sections(section)


def test_the_reference_is_current():
    assert (DOCS / "recipe.md").read_text(encoding="utf-8") == render(), NOW


def test_the_schema_for_editors_is_current():
    written = json.loads((DOCS / "recipe.schema.json").read_text(encoding="utf-8"))
    assert written == editor_schema(), NOW


@pytest.mark.parametrize("section", sorted({*sections()}, key=lambda each: each.__name__))
def test_every_key_is_documented(section):
    assert section.__doc__
    assert set(section.model_fields) - {"name"} == set(field_docs(section))


def test_the_reference_has_every_key():
    text = render()
    for path in key_paths():
        assert f"| `{path.rsplit('.', 1)[-1]}` |" in text, path


def test_the_schema_knows_every_field_by_the_name_that_recipes_use():
    assert list(recipe_schema()["properties"]) == list(Recipe.model_fields)
    assert "method.loss" in key_paths()
    assert "method.form" not in key_paths()


def test_editors_accept_a_recipe_that_only_changes_another():
    schema = editor_schema()
    assert {"required": ["extends"]} in schema["anyOf"]
    assert all("required" not in section for section in schema["$defs"].values())
    assert "required" in recipe_schema()["$defs"]["DataConfig"]


def test_the_methods_of_the_help_are_those_of_the_registry():
    expected = {name: method.about for name, method in METHODS.items()}
    assert list(method_lines().items()) == list(expected.items())


def test_sections_are_frozen_and_refuse_infinity(write, valid):
    recipe = load_recipe(write(valid)).recipe
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3
