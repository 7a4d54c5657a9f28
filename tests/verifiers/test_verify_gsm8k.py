"""The script that compares verifiers with the labels of GSM8K's model solutions."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from ftkit.verifiers.config import NumericConfig

SCRIPT = Path(__file__).parents[2] / "scripts" / "verify_gsm8k.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("verify_gsm8k", SCRIPT)
    module = sys.modules["verify_gsm8k"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["verify_gsm8k"]


def test_disagreements_are_listed_with_their_reason(script, tmp_path, capsys):
    def solved(text, correct):
        return {"solution": text, "is_correct": correct}

    rows = [
        {
            "question": "?",
            "ground_truth": "6*7\nA: 42",
            "6b_finetuning": solved("A: 42", True),
            "6b_verification": solved("so\nA: 4,2", False),
            "175b_finetuning": solved("so\nA: $42.00", False),  # a wrong label
            "175b_verification": solved("it is 42", True),
        }
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / script.FILE).write_text(text, encoding="utf-8")
    assert script.main(["--source", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("50.00% of 4 as labelled") == 3
    assert "line 1, 175b_finetuning: labelled incorrect, judged correct" in out
    assert "line 1, 175b_verification: labelled correct, judged unparseable: no " in out


def test_a_missing_file_is_the_users_error(script, tmp_path, capsys):
    assert script.main(["--source", str(tmp_path)]) == 2
    assert "no such file" in capsys.readouterr().err


@pytest.mark.skipif(
    not (SCRIPT.parents[2] / "shared" / "data" / "gsm8k").is_dir(),
    reason="GSM8K is not at shared/data/gsm8k",
)
def test_every_label_is_met(script):
    rows = script.read(script.SOURCE / script.FILE)
    config = NumericConfig(name="numeric", after=script.MARKER)
    verdicts = script.judged(config, [row.item for row in rows])
    assert len(rows) == 5276
    assert [verdict.status == "correct" for verdict in verdicts] == [row.correct for row in rows]
