"""``ftkit compare``: what it says of several runs."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from ftkit.cli_runs import runs_app
from ftkit.tasks.compare import compare
from ftkit.tasks.curves.line import build_line
from ftkit.tasks.curves.log import read_run
from ftkit.tasks.curves.tell import details, differences, labels
from tests.tasks.compare.online import OPTIONS, faults, online, rows, write


class TestFigures:
    def test_last_evaluation_with_its_interval_and_mean_of_the_last_tenth(self, here, measure):
        runs = [online(here / name) for name in ("a", "b")]
        found = measure(*runs, each=True, metrics=None)
        for run, line in zip(runs, found["lines"], strict=True):
            last = rows(run, "eval")[-1]["exact_match"]
            assert line["final"]["eval.exact_match"] == {**last, "runs": 1}
            late = [row["reward"] for row in rows(run)[-10:]]
            assert line["final"]["reward"]["value"] == pytest.approx(sum(late) / 10)
            assert line["final"]["reward"]["interval"] is None
            assert line["runs"][0]["tokens"] == sum(row["tokens"] for row in rows(run))
        assert list(found["lines"][0]["final"]) == found["measures"]
        assert len(found["measures"]) == 7

    def test_runs_that_differ_by_seed_and_folder_are_one_line(self, here, measure):
        runs = [online(here / f"grpo-seed-{seed}", seed=seed) for seed in range(3)]
        other = online(here / "dapo", method={"preset": "dapo", "length": "token"})
        found = measure(*runs, other, metrics="exact_match")
        assert [(line["label"], len(line["runs"])) for line in found["lines"]] == [
            ("grpo", 3),
            ("dapo", 1),
        ]
        ends = [rows(run, "eval")[-1]["exact_match"]["value"] for run in runs]
        final = found["lines"][0]["final"]["eval.exact_match"]
        reach = 4.3027 * statistics.stdev(ends) / math.sqrt(3)
        assert final["value"] == pytest.approx(statistics.fmean(ends))
        assert final["interval"] == pytest.approx([final["value"] - reach, final["value"] + reach])
        assert len(measure(*runs, other, each=True)["lines"]) == 4

    def test_over_names_more_keys_by_which_runs_of_a_line_may_differ(self, here, measure):
        runs = [
            online(here / f"s{seed}" / "grpo", seed=seed, model__path=f"runs/{seed}/model")
            for seed in range(2)
        ]
        assert len(measure(*runs)["lines"]) == 2
        (line,) = measure(*runs, over="model.path")["lines"]
        assert line["label"] == "grpo"
        assert len(measure(*runs, over="model")["lines"]) == 1
        assert "no recipe has it" in faults(*runs, over="model.pth")[0]

    def test_bands_are_mean_and_standard_error_where_all_runs_have_a_step(self, here):
        logs = [read_run(online(here / str(s), seed=s, steps=20 + 5 * s)) for s in range(4)]
        line = build_line("x", "", logs, ["reward"], 1)
        curve = line.curves["reward"]
        assert curve.step.tolist() == list(range(1, 21))
        at = [[log.measures["reward"][step].value for log in logs] for step in range(1, 21)]
        error = np.array([statistics.stdev(row) / 2 for row in at])
        mean = np.array([statistics.fmean(row) for row in at])
        np.testing.assert_allclose(curve.value, mean)
        np.testing.assert_allclose(curve.low, mean - error)
        np.testing.assert_allclose(curve.high, mean + error)
        assert any("end at steps 20 to 35" in note for note in line.notes)

    def test_an_evaluation_lies_at_the_tokens_seen_before_it(self, here):
        run = online(here / "a")
        curve = build_line("a", "", [read_run(run)], ["eval.exact_match"], 9).curves
        curve = curve["eval.exact_match"]
        seen = np.cumsum([row["tokens"] for row in rows(run)])
        assert curve.tokens.tolist() == seen[24::25].tolist()
        told = [row["exact_match"] for row in rows(run, "eval")]
        assert curve.value.tolist() == [each["value"] for each in told]  # never smoothed
        assert curve.low.tolist() == [each["interval"][0] for each in told]

    def test_what_only_some_runs_have_is_said(self, here, measure):
        a, b = online(here / "a"), online(here / "b", train__lr=1.0)
        write(b / "metrics.jsonl", [{**row, "kl": None} for row in rows(b)])
        (b / "eval.jsonl").unlink()
        found = measure(a, b, metrics=None)
        assert found["lines"][1]["final"]["eval.exact_match"] is None
        assert found["lines"][1]["final"]["kl"] is None
        assert any(note.startswith("b: has no kl, eval.exact_match") for note in found["notes"])
        assert any("kl: no number at 100 of its steps" in note for note in found["notes"])

    def test_any_measure_can_be_asked_for_and_an_unknown_one_is_refused(self, here, measure):
        run = online(here / "a")
        assert measure(run, metrics="exact_match,grad_norm")["measures"] == [
            "eval.exact_match",
            "grad_norm",
        ]
        (fault,) = faults(run, metrics="reward,rewrad")
        assert fault.startswith("--metrics rewrad: no run has it; choose among")
        assert "eval.exact_match_sampled" in fault


class TestNames:
    def lines(self, here, *methods):
        logs = [
            read_run(online(here / str(n) / "run", steps=2, method=method))
            for n, method in enumerate(methods)
        ]
        return [[log] for log in logs]

    def test_a_line_says_what_sets_it_apart_from_others_of_its_method(self, here):
        lines = self.lines(
            here, {}, {}, {"preset": "dapo", "clip_high": 0.28}, {"name": "disco", "delta": 1e-4}
        )
        differ = differences(lines)
        assert details(lines, ["x"] * 4, differ) == [
            "grpo",
            "grpo",
            "dapo, clip_high 0.28",
            "disco",
        ]
        assert details(lines, ["grpo", "x", "x", "disco"], differ)[0] == ""
        assert differ["method.delta"] == ["\u2014", "\u2014", "\u2014", "0.0001"]
        assert "run" not in differ
        assert labels(lines) == ["0", "1", "2", "3"]

    def test_names_that_steer_a_browser_or_a_terminal_are_shown_as_they_are(self, here, measure):
        names = ["</script><script>alert(1)</script>", "_$x_1$\x1b[31m\n", "数 & <b>"]
        runs = [
            online(here / name.replace("/", "|"), steps=3, train__lr=n)
            for n, name in enumerate(names)
        ]
        found = measure(*runs)
        text = (here / "compare.html").read_text()
        assert "<script>alert" not in text
        assert "<b>" in found["lines"][2]["label"]
        assert "&lt;b&gt;" in text
        assert found["lines"][1]["label"] == "_$x_1$\u241b[31m\u240a"
        assert text.count("<script") == text.count("</script") == 2


def test_a_table_has_every_figure_and_every_note(here, capsys, measure):
    runs = [online(here / "a"), online(here / "b", steps=50, train__lr=1.0)]
    (runs[1] / "summary.json").unlink()
    found = measure(*runs, metrics=None)
    compare([str(run) for run in runs], **{**OPTIONS, "metrics": None}, as_json=False)
    out = capsys.readouterr().out
    for line in found["lines"]:
        for name in found["measures"]:
            assert f"{line['final'][name]['value']:.4g}" in out
        assert "{:.4g} to {:.4g}".format(*line["final"]["eval.exact_match"]["interval"]) in out
    assert all(note in out for note in found["notes"])
    assert "compare.png" in out


def test_the_command_line_passes_all_on_and_loads_no_library_for_its_help(here):
    run = online(here / "a", steps=3)
    call = ["compare", str(run), "--out", "x", "--metrics", "reward", "--smooth", "2", "--json"]
    done = CliRunner().invoke(runs_app, [*call, "--each", "--over", "model"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["files"] == {"png": "x.png", "html": "x.html"}
    assert found["measures"] == ["reward"]
    assert "averaged over 2 steps" in found["notes"][0]
    heavy = "{'torch', 'matplotlib', 'numpy', 'pydantic'} & set(sys.modules)"
    code = f"import sys, ftkit.cli_runs; print({heavy})"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"
