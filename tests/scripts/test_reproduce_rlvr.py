"""The comparison of methods that learn from a verifier, at next to nothing of its size."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter

import pytest

from ftkit.objectives import METHODS as KNOWN
from ftkit.objectives.grpo import PRESETS
from scripts.reproduce import rlvr
from scripts.reproduce.show_rlvr import COLOURS, draw, tables


def test_every_method_and_preset_is_compared():
    compared = {method.command for method in rlvr.METHODS.values()}
    assert compared == {name for name, known in KNOWN.items() if known.kind == "rollouts"}
    said = [each for method in rlvr.METHODS.values() for each in method.constants]
    assert {f"method.preset={preset}" for preset in PRESETS} <= set(said)
    assert set(COLOURS) == set(rlvr.METHODS)


def test_all_see_the_same_number_of_answers_and_have_as_many_candidates():
    for method in rlvr.METHODS.values():
        assert not [c for c in method.constants if c.startswith(("train.steps", "train.prompts"))]
    tries = Counter(len(rlvr.candidates(method)) for method in rlvr.METHODS.values())
    assert set(tries) == {3}


def test_runs_are_kept_apart_by_their_learning_rate(sums, tmp_path, capsys):
    out = tmp_path / "rlvr"
    said = ["--quick", "--data", str(sums), "--out", str(out), "--starts", str(tmp_path / "dft")]
    assert rlvr.main([*said, "--search", "--only", "grpo"]) == 0
    assert {f"grpo-{lr:g}.json" for lr in rlvr.RATES} <= {
        path.name for path in (out / "seed-100").iterdir()
    }
    capsys.readouterr()
    assert rlvr.main([*said, "--search", "--only", "grpo"]) == 0
    assert "ftkit" not in capsys.readouterr().err  # no command was run
    assert rlvr.main([*said, "--seeds", "1", "--only", "grpo", "disco log-L"]) == 0
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines()]
    assert rows[2:] == ["start", "grpo", "disco log-L"]


@pytest.fixture
def found():
    curve = {"step": [5, 10], "reward": [0.2, 0.4], "entropy": [1.0, 0.5], "kl": [0.0, 0.1]}
    ends = [{"exact_match": e, "exact_match_sampled": e / 2, "seconds": 9.0} for e in (0.5, 0.7)]
    runs = [{**end, "curve": curve} for end in ends]
    better = [{**run, "exact_match": run["exact_match"] + 0.1} for run in runs]
    return {"start": ends, "grpo": runs, "ppo": better}


def test_differences_are_paired_by_seed(found):
    row = next(line for line in tables(found).splitlines() if line.startswith("| ppo"))
    assert "| +10.0 ± 0.0 |" in row
    assert "| +0.0 ± 0.0 |" in row


def test_the_figure_has_a_line_for_each_method(found):
    texts = {element.text for element in ET.fromstring(draw(found)).iter()}
    assert {"grpo", "ppo", "reward", "exact match, greedy (%)"} <= texts
    assert "start" not in texts
