"""GSM8K in our format: the number at the end, the calculator's notes out, nothing overwritten."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from ftkit.model.config import ModelConfig
from ftkit.model.tokenizer import load_tokenizer

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("prepare", ROOT / "scripts" / "prepare_gsm8k.py")
prepare = importlib.util.module_from_spec(spec)
spec.loader.exec_module(prepare)

PROBLEM = {
    "question": "Two bags of 600 apples each? ",
    "answer": "There are 2*600 = <<2*600=1200>>1,200 apples.\n#### 1,200",
}


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text(json.dumps(PROBLEM) + "\n")
    return folder


def run(source, out, *options):
    return prepare.main(["--source", str(source), "--out", str(out), *options])


def test_a_problem_becomes_prompt_completion_and_truth(source, tmp_path):
    assert run(source, tmp_path / "out") == 0
    for split in ("train", "test"):
        (line,) = (tmp_path / "out" / f"{split}.jsonl").read_text().splitlines()
        assert json.loads(line) == {
            "prompt": "Two bags of 600 apples each?\n",
            "completion": "There are 2*600 = 1,200 apples.\n#### 1200",
            "truth": "1200",
        }


def test_annotations_are_kept_on_request(source, tmp_path):
    run(source, tmp_path / "out", "--annotations")
    assert "<<2*600=1200>>" in (tmp_path / "out" / "train.jsonl").read_text()


def test_other_content_is_overwritten_only_by_force(source, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(source, out, "--tokenizer", "280") == 0
    before = (out / "train.jsonl").read_text()
    assert run(source, out, "--tokenizer", "280") == 0
    assert run(source, out, "--annotations") == 2
    assert "--force" in capsys.readouterr().err
    assert run(source, out, "--tokenizer", "270") == 2
    assert (out / "train.jsonl").read_text() == before
    assert run(source, out, "--annotations", "--force") == 0
    assert (out / "train.jsonl").read_text() != before


def test_the_tokenizer_is_trained_on_the_training_text(source, tmp_path):
    run(source, tmp_path / "out", "--tokenizer", "280")
    tokenizer = load_tokenizer(ModelConfig(path=str(tmp_path / "out" / "tokenizer")))
    assert len(tokenizer) == 280


def test_a_problem_without_a_number_is_an_error(source, tmp_path, capsys):
    (source / "test.jsonl").write_text(json.dumps({**PROBLEM, "answer": "Many."}) + "\n")
    assert run(source, tmp_path / "out") == 2
    assert "test.jsonl:1: no number after ####" in capsys.readouterr().err


def test_all_of_gsm8k_can_be_read():
    if not prepare.SOURCE.is_dir():
        pytest.skip(f"GSM8K is not at {prepare.SOURCE.parent.name}/{prepare.SOURCE.name}")
    for split, count in (("train", 7473), ("test", 1319)):
        rows = list(prepare.rows_of(str(prepare.SOURCE), split, annotations=False))
        assert len(rows) == count
        assert all(row["completion"].endswith(f"#### {row['truth']}") for row in rows)
        assert not any("<<" in row["completion"] for row in rows)
