"""What the evidence scripts learn from, but less of it."""

from __future__ import annotations

import json

import pytest

from ftkit.data.arithmetic import problems
from ftkit.model.tokenizer import train_tokenizer


@pytest.fixture
def sums(tmp_path):
    """What ``make tiny`` writes, but less of it."""
    data = tmp_path / "tiny" / "data"
    data.mkdir(parents=True)
    train, test = problems("addition", "train", limit=40), problems("addition", "test", limit=8)
    rows = {
        "pretrain.jsonl": [problem.text() for problem in train],
        "train.jsonl": [problem.row() for problem in train],
        "test.jsonl": [problem.row() for problem in test],
    }
    for name, each in rows.items():
        (data / name).write_text("".join(json.dumps(row) + "\n" for row in each))
    trained = train_tokenizer([row["text"] for row in rows["pretrain.jsonl"]], 300)
    trained.save_pretrained(tmp_path / "tiny" / "tokenizer")
    return tmp_path / "tiny"
