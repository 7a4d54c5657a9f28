"""What every method's page must say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from ftkit.core.section import field_docs
from ftkit.objectives import METHODS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_method_states_its_equation_and_its_source(method):
    text = method.__doc__
    equation, _, source = text.partition("Source:")
    assert re.match(r"(Minimize|Maximize) ", equation.strip())
    assert re.search(r"equations? |arXiv:\d{4}\.\d{5}", source)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_constant_of_a_method_is_described(method):
    described = set(field_docs(method))
    assert described == set(method.model_fields) - {"name"}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_in_the_file_of_its_name_and_has_a_page(name):
    assert METHODS[name].__module__ == f"ftkit.objectives.{name}"
    page = ROOT / "docs" / "methods" / f"{name}.md"
    assert page.is_file(), f"write docs/methods/{name}.md"


def test_no_equation_knows_ranks_micro_batches_or_optimizers():
    forbidden = {"distributed", "optim", "world", "micro", "rank", "all_reduce"}
    for path in (ROOT / "ftkit" / "objectives").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not names & forbidden, path.name
