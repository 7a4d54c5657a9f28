"""``ftkit export``: what is refused, and what is printed."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from ftkit.cli import app
from ftkit.core.errors import RunError, UserError
from ftkit.model.save import save_model
from ftkit.tasks import changes
from tests.tasks.export.conftest import (
    made,
)

# refusals


def test_nothing_is_overwritten_and_all_faults_are_said(adapted, tmp_path):
    run = adapted()
    (run / "export").mkdir()
    (run / "export" / "mine").write_text("precious")
    with pytest.raises(UserError, match="it exists and is not empty"):
        made(run)
    assert [f.name for f in (run / "export").iterdir()] == ["mine"]
    with pytest.raises(UserError) as caught:
        made(tmp_path, out=str(run / "recipe.yaml"))
    assert [fault.found for fault in caught.value.faults] == [
        "holds no run (recipe.yaml)",
        "it is a file",
    ]
    (tmp_path / "empty").mkdir()
    made(run, out=str(tmp_path / "empty"))
    assert (tmp_path / "empty" / "export.json").is_file()


def test_a_folder_that_says_something_else_is_no_export(adapted, monkeypatch):
    """Files may be whole and a configuration wrong: that shows in what the model says alone."""
    run = adapted()

    def damaged(reader, folder, stop):
        save_model(reader, folder, stop)
        config = json.loads((folder / "config.json").read_text())
        config["rope_parameters"]["rope_theta"] = 7.0
        (folder / "config.json").write_text(json.dumps(config))

    monkeypatch.setattr(changes, "save_model", damaged)
    before = sorted(run.iterdir())
    with pytest.raises(RunError, match="reading the folder back changes what the model says"):
        made(run)
    assert sorted(run.iterdir()) == before


def test_without_rows_random_tokens_are_taken(adapted, capsys):
    run = adapted()
    (run.parent / "train.jsonl").unlink()
    report = made(run, capsys)
    assert report["probe"] == {"of": "random tokens", "rows": 8, "tokens": 8 * 64}
    assert "no rows of the run's data can be read: " in report["notes"][0]


def test_the_command(adapted, tmp_path):
    run = adapted()
    invoke = CliRunner().invoke
    told = invoke(app, ["export", str(run), "--no-merge", "--out", str(tmp_path / "a"), "--json"])
    assert told.exit_code == 0
    report = json.loads((tmp_path / "a" / "export.json").read_text())
    assert json.loads(told.stdout) == {"folder": str(tmp_path / "a"), **report}
    told = invoke(app, ["export", str(run), "--dtype", "bfloat16"], env={"COLUMNS": "100"})
    assert "merged in bfloat16, in" in told.stdout
    total = json.loads((run / "export" / "export.json").read_text())["difference"]["total"]
    (line,) = (line for line in told.stdout.splitlines() if "as it was trained" in line)
    assert line.split()[-2:] == [f"{total['largest']:.3g}", f"{total['mean']:.3g}"]
