"""Ranks with other recipes, rows or versions are refused before they train."""

from __future__ import annotations

import socket

from ftkit.train.folder import versions
from tests.parallel.agreeing import agreed, seen

HOST = socket.gethostname()


def test_the_same_is_agreed_on(recipe, ranks):
    assert ranks(2).run(agreed, [recipe()] * 2) == [None] * 2


def test_other_rows_on_one(recipe, ranks, files, tmp_path):
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("".join((files / "train.jsonl").read_text().splitlines(keepends=True)[:-1]))
    paths = [recipe("a"), recipe("b", data={"train": str(fewer)})]
    (told, shared), again = ranks(2).run(agreed, paths)
    assert shared
    assert again == (told, shared)
    recipe_, rows = told.splitlines()
    assert recipe_.startswith(f"rank 1 on {HOST}: another recipe than rank 0: ")
    assert f"data.train {fewer}, not {files / 'train.jsonl'}" in recipe_
    assert rows.startswith(f"rank 1 on {HOST}: other rows than rank 0: fingerprint ")
    assert rows.endswith("give every node the same files, as by a shared file system")


def test_another_version_on_one(recipe, ranks):
    other = {**versions(), "torch": "1.0"}
    (told, _), _ = ranks(2).run(agreed, [recipe()] * 2, other)
    assert told.startswith(f"rank 1 on {HOST}: other versions than rank 0: torch 1.0, not ")


def test_a_folder_that_all_see(ranks, tmp_path):
    assert ranks(2).run(seen, [tmp_path] * 2) == [None] * 2
    assert not list(tmp_path.iterdir())


def test_a_folder_of_the_same_name_on_another_machine(ranks, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    for other in ("there", "nowhere"):
        told = ranks(2).run(seen, [tmp_path / "here", tmp_path / other])
        assert all(f"rank 1 on {HOST} does not see what rank 0 writes there" in t for t in told)
        assert all(t.endswith("that all nodes share (run=FOLDER)") for t in told)
    assert not list((tmp_path / "here").iterdir())
