"""``ftkit eval``: what is measured, and where it is said."""

from __future__ import annotations

import json
import shutil

import pytest

from ftkit.core.errors import UserError
from ftkit.tasks.evaluate import evaluate_command

DEFAULTS = {"data": None, "limit": None, "as_json": True, "rows": None}


@pytest.fixture
def measure(capsys):
    def call(target, *overrides, **options):
        evaluate_command(str(target), overrides, **{**DEFAULTS, **options})
        return json.loads(capsys.readouterr().out)

    return call


def test_json_has_n_and_for_each_figure_value_and_interval_and_nothing_else(run, measure):
    found = measure(run)
    assert found["n"] == 6
    figures = {name: found[name] for name in found if isinstance(found[name], dict)}
    assert all(figures.pop(f"verdicts{kind}")["timeout"] == 0 for kind in ("", "_sampled"))
    assert {"loss", "perplexity", "exact_match", "exact_match_sampled"} < set(figures)
    for figure in figures.values():
        low, high = figure["interval"]
        assert low <= figure["value"] <= high


def test_a_run_is_its_model_and_a_recipe_is_what_it_starts_from(run, measure):
    of_run, of_recipe = measure(run), measure(run / "recipe.yaml")
    of_model = measure(run / "model", "verify.name=exact", data=str(run.parent / "test.jsonl"))
    assert of_run["loss"] == of_model["loss"]
    assert of_run["loss"] != of_recipe["loss"]
    seeded = measure(run / "recipe.yaml", "seed=1")  # the seed that the run's model was made with
    assert seeded["loss"]["value"] == pytest.approx(of_run["loss"]["value"], abs=1e-6)


def test_rows_limit_and_overrides(run, measure, tmp_path):
    for target in (run, run / "recipe.yaml"):
        assert measure(target, data=str(run.parent / "other.jsonl"))["n"] == 2
    assert measure(run, limit=4)["n"] == 4
    everything = measure(run)["n"]
    assert everything > 4
    assert measure(run, "eval.limit=3")["n"] == everything
    assert "exact_match_sampled" not in measure(run, "sample.temperature=0")
    assert measure(run, "data.eval={fraction: 0.5}")["n"] < 6
    file = tmp_path / "rows.jsonl"
    found = measure(run, rows=str(file))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["prompt"] for line in lines] == [f"{n}+1=" for n in range(3, 9)]
    assert [line["truth"] for line in lines] == [str(n + 1) for n in range(3, 9)]
    total = sum(line["nll"] for line in lines) / sum(line["tokens"] for line in lines)
    assert total == pytest.approx(found["loss"]["value"])


def test_a_table_names_every_figure_with_its_interval(run, capsys):
    evaluate_command(str(run), (), **{**DEFAULTS, "as_json": False})
    out = capsys.readouterr().out
    evaluate_command(str(run), (), **DEFAULTS)
    found = json.loads(capsys.readouterr().out)
    assert "6 rows" in out
    for name, figure in found.items():
        if isinstance(figure, dict) and "value" in figure:
            (line,) = [line for line in out.splitlines() if line.split()[:1] == [name]]
            assert f"{figure['value']:.4g}" in line
            assert "{:.4g} to {:.4g}".format(*figure["interval"]) in line


def test_a_file_of_rows_is_never_overwritten(run, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        evaluate_command(str(run), (), **{**DEFAULTS, "rows": str(file)})
    assert file.read_text() == "mine"
    with pytest.raises(UserError, match="folder does not exist"):
        evaluate_command(str(run), (), **{**DEFAULTS, "rows": str(tmp_path / "no" / "rows")})


def test_what_cannot_be_measured_is_said(run, tmp_path):
    def said(target, *overrides, **options):
        with pytest.raises(UserError) as raised:
            evaluate_command(str(target), overrides, **{**DEFAULTS, **options})
        return str(raised.value)

    assert "add --data" in said(run / "model")
    assert "neither a run (recipe.yaml) nor a model (config.json)" in said(tmp_path)
    assert "no built-in recipe" in said(tmp_path / "none")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(run / "recipe.yaml", unfinished)
    assert "no model/ yet" in said(unfinished)
    assert "sample.temprature" in said(run, "sample.temprature=0")
    nothing = ("data.eval=null", "verify=null", "sample=null")
    assert "no held-out rows" in said(run / "recipe.yaml", *nothing)
