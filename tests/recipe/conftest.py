"""A valid recipe, and files to load recipes from."""

from __future__ import annotations

import pytest

VALID = """\
run: runs/a
method: {name: sft}
data:
  train: rows.jsonl
  eval: held-out.jsonl
model:
  path: org/model
train:
  lr: 1e-4
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Work in an empty folder, where places are file names."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(folder):
    """Return a function that writes ``name.yaml`` and returns its name."""

    def write_file(text, name="r.yaml"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return name

    return write_file


@pytest.fixture
def valid():
    """Return the text of a small valid recipe."""
    return VALID
