"""``ftkit train --slurm``: where the script goes, how it is sent, and what is refused."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ftkit.cli import app
from ftkit.core.errors import UserError
from ftkit.recipe import dump_yaml, load_recipe

RECIPE = """\
run: runs/a b
method: {name: sft}
data: {train: rows.jsonl}
model: {path: org/model}
train: {lr: 1e-4}
"""
SCRIPT = Path("runs/a b.sbatch")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    Path("r.yaml").write_text(RECIPE)
    Path("rows.jsonl").touch()
    return tmp_path


@pytest.fixture
def sbatch(folder, monkeypatch):
    """Return a function that puts an sbatch on PATH, which notes what it is given."""

    def put(text, status=0):
        path = folder / "bin" / "sbatch"
        path.parent.mkdir()
        said = f"echo {shlex.quote(text)}" + (" >&2" if status else "")
        path.write_text(f'#!/bin/sh\necho "$@" >{folder}/sent\n{said}\nexit {status}\n')
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(path.parent))

    return put


def run(*arguments, command="train"):
    return CliRunner().invoke(app, [command, "r.yaml", *arguments])


def refused(*arguments, command="train"):
    error = run(*arguments, command=command).exception
    assert isinstance(error, UserError)
    return str(error)


@pytest.mark.parametrize("command", ["train", "sft"])
def test_the_script_lies_beside_the_runs_folder(folder, command):
    result = run("train.lr=1e-5", "--slurm", "--gpus", "4", "--nodes", "3", command=command)
    assert result.exit_code == 0
    assert result.stdout == f"{SCRIPT}: written\nsend it: sbatch 'runs/a b.sbatch'\n"
    text = SCRIPT.read_text()
    train = [sys.executable, "-m", "ftkit", "train", "r.yaml", "train.lr=1e-5"]
    assert f"train=({shlex.join(train)} --gpus 4 --nodes 3 --resume)\n" in text
    assert f"cd {shlex.quote(str(folder))} || exit 1\n" in text
    assert "checkpoints='runs/a b/checkpoints'\n" in text
    assert not Path("runs/a b").exists()  # nothing is trained


@pytest.mark.parametrize(("override", "cpus"), [("seed=0", 8), ("train.threads=3", 6)])
def test_cpus_are_those_of_the_recipes_threads(folder, override, cpus):
    text = run(override, "--slurm", "--gpus", "2", "--dry-run").stdout
    assert f"#SBATCH --cpus-per-task={cpus}\n" in text
    assert "#SBATCH --nodes=1\n" in text


def test_a_dry_run_prints_the_script_and_writes_and_sends_nothing(folder, sbatch):
    sbatch("12")
    options = ("--slurm", "--gpus", "4", "--sbatch", "--partition=a", "--sbatch=--time=5")
    printed = run(*options, "--submit", "--dry-run").stdout
    assert not Path("runs").exists()
    assert not Path("sent").exists()
    run(*options)
    assert SCRIPT.read_text() == printed
    assert "\n#SBATCH --partition=a\n#SBATCH --time=5\n" in printed


def test_what_ftkit_wrote_is_replaced_and_nothing_else(folder):
    options = ("--slurm", "--gpus")
    run(*options, "4")
    assert run(*options, "4").stdout.startswith(f"{SCRIPT}: as it was\n")
    assert run(*options, "8").stdout.startswith(f"{SCRIPT}: replaced\n")
    assert "--gpus 8" in SCRIPT.read_text()
    SCRIPT.write_text("#!/bin/bash\n# mine\n# Written by ftkit\n")
    assert "ftkit did not write it" in refused(*options, "4")
    assert "# mine" in SCRIPT.read_text()


def test_a_place_where_nothing_can_be_written(folder):
    Path("runs").touch()
    assert "cannot be written: " in refused("--slurm", "--gpus", "1")


@pytest.mark.parametrize("said", ["123", "123;cluster"])
def test_the_job_is_sent(folder, sbatch, said):
    sbatch(said)
    result = run("--slurm", "--gpus", "4", "--submit")
    assert result.stdout.splitlines()[1] == "sent as job 123; its log: runs/a b-123.log"
    assert Path("sent").read_text() == f"--parsable {SCRIPT}\n"


def test_what_slurm_says_against_a_job_is_told(folder, sbatch):
    sbatch("sbatch: error: invalid partition", status=1)
    assert "invalid partition" in refused("--slurm", "--gpus", "4", "--submit")


def test_without_slurm_nothing_is_sent_or_written(folder):
    os.environ["PATH"] = ""
    assert "there is no sbatch here" in refused("--slurm", "--gpus", "4", "--submit")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--slurm"], "how many GPUs"),
        (["--submit"], "--submit: has no meaning without --slurm"),
        (["--sbatch", "--time=5"], "--sbatch: has no meaning without --slurm"),
        (["--slurm", "--gpus", "1", "--sbatch", "x"], "'x' is no option"),
        (["--slurm", "--gpus", "1", "seed=x"], "command line seed: 'x' is text"),
        (["--slurm", "--gpus", "1", "data.train=none.jsonl"], "there is no 'none.jsonl'"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(folder, arguments, words):
    assert words in refused(*arguments)
    assert not Path("runs").exists()


def test_a_method_command_takes_only_its_own_recipes(folder):
    words = refused("--slurm", "--gpus", "1", command="pretrain")
    assert "the command is `ftkit pretrain`" in words


def test_a_run_that_is_there_needs_resume_and_the_same_recipe(folder):
    there = Path("runs/a b/recipe.yaml")
    there.parent.mkdir(parents=True)
    there.write_text(dump_yaml(load_recipe("r.yaml").resolved()))
    assert "holds a run already" in refused("--slurm", "--gpus", "1")
    assert run("--slurm", "--gpus", "1", "--resume").exit_code == 0
    assert "train.lr: is " in refused("train.lr=3", "--slurm", "--gpus", "1", "--resume")
