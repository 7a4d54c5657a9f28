from __future__ import annotations

import json

import pytest

from ftkit.tasks.evaluate import evaluate_command
from tests.end_to_end.conftest import run
from tests.end_to_end.test_resume import GRADED

RUNS = {
    "sft": {"verify": {"name": "exact"}, "sample": {"temperature": 1.0, "max_tokens": 4}},
    "grpo": {"method": {"name": "grpo"}, "train": {"steps": 2, "prompts": 2}, **GRADED},
}


@pytest.mark.parametrize("name", RUNS)
def test_every_figure_of_a_run_is_printed(recipe, tmp_path, capsys, name):
    """Also those that only several sampled answers to a prompt have."""
    assert run(recipe("run", **RUNS[name])) == 0
    capsys.readouterr()
    options = {"data": None, "limit": 4, "rows": None}
    evaluate_command(str(tmp_path / "run"), (), as_json=True, **options)
    found = json.loads(capsys.readouterr().out)
    figures = [key for key, each in found.items() if isinstance(each, dict) and "value" in each]
    assert ("pass@2" in figures) == (name == "grpo")
    evaluate_command(str(tmp_path / "run"), (), as_json=False, **options)
    told = capsys.readouterr().out
    for figure in figures:
        assert f" {figure} " in told
