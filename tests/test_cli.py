"""The command line: what it prints, how it exits, what it loads."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from types import ModuleType

import pytest
from typer.testing import CliRunner

from ftkit.__main__ import main
from ftkit.cli import app
from ftkit.core.errors import RunError, UserError
from ftkit.recipe import builtin_recipes, load_recipe

VALID = """\
run: runs/a
method: {name: sft}
data: {train: rows.jsonl}
model: {path: org/model}
train: {lr: 1e-4}
"""
HEAVY = {"torch", "transformers", "datasets", "numpy", "peft", "deepspeed"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(VALID)
    (tmp_path / "rows.jsonl").touch()
    return tmp_path


@pytest.fixture
def task(monkeypatch):
    """Return a function that puts a stand-in for a task in its place and returns its calls."""

    def replace(module, name, result=None):
        calls = []

        def stand_in(*arguments, **options):
            calls.append((arguments, options))
            if isinstance(result, BaseException):
                raise result
            return result

        fake = ModuleType(f"ftkit.tasks.{module}")
        setattr(fake, name, stand_in)
        monkeypatch.setitem(sys.modules, f"ftkit.tasks.{module}", fake)
        return calls

    return replace


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def status(monkeypatch, *arguments):
    """Return the exit status of the whole command."""
    monkeypatch.setattr(sys, "argv", ["ftkit", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


def process(*arguments, **environment):
    command = [sys.executable, "-m", "ftkit", *arguments]
    env = {**os.environ, "COLUMNS": "100", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


# train


@pytest.mark.parametrize("command", ["train", "sft"])
def test_training_gets_the_recipe_with_its_overrides_and_gives_the_status(folder, task, command):
    calls = task("train", "train", result=143)
    result = run(command, "r.yaml", "seed=3", "--resume")
    assert result.exit_code == 143
    ((loaded,), options) = calls[0]
    assert loaded.recipe.seed == 3
    assert options == {"resume": True, "dry_run": False}


def test_a_methods_command_takes_only_its_own_recipes(folder, task):
    calls = task("train", "train", result=0)
    result = run("pretrain", "r.yaml")
    assert isinstance(result.exception, UserError)
    assert "the command is `ftkit pretrain`" in str(result.exception)
    assert not calls


def test_a_missing_file_stops_training_before_anything_is_loaded(folder, task):
    calls = task("train", "train", result=0)
    (folder / "rows.jsonl").unlink()
    assert "there is no 'rows.jsonl'" in str(run("train", "r.yaml").exception)
    assert not calls


def test_other_commands_call_their_tasks(folder, task):
    evaluated = task("evaluate", "evaluate_command")
    previewed = task("preview", "preview")
    chatted = task("chat", "chat")
    run("eval", "runs/a", "a=b", "--limit", "3", "--data", "d.jsonl", "--rows", "o", "--json")
    run("data", "r.yaml", "--rows", "0", "--boundaries")
    run("data", "r.yaml")
    run("data", "r.yaml", "--json")
    run("chat", "m", "--once", "hi", "--temperature", "0.5", "--max-tokens", "7")
    assert evaluated == [
        (("runs/a", ("a=b",)), {"data": "d.jsonl", "limit": 3, "as_json": True, "rows": "o"})
    ]
    assert [options for _, options in previewed] == [
        {"rows": 0, "as_json": False, "boundaries": True},
        {"rows": 3, "as_json": False, "boundaries": False},
        {"rows": None, "as_json": True, "boundaries": False},
    ]
    assert chatted == [(("m",), {"once": "hi", "temperature": 0.5, "max_tokens": 7})]


# exit statuses


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (UserError([]), 2),
        (RunError("the loss is not finite"), 1),
        (KeyboardInterrupt(), 130),
        (OSError(errno.ENOSPC, "No space left on device"), 2),
    ],
)
def test_exit_statuses(folder, task, monkeypatch, capsys, *, error, code):
    task("train", "train", result=error if error else 0)
    assert status(monkeypatch, "train", "r.yaml") == code
    assert "Traceback" not in capsys.readouterr().err


def test_faults_are_lines_on_stderr_and_counted(folder, monkeypatch, capsys):
    (folder / "r.yaml").write_text(VALID + "a: 1\nb: 2\n")
    assert status(monkeypatch, "config", "r.yaml") == 2
    out, err = capsys.readouterr()
    assert not out
    assert [line.split(" ")[0] for line in err.splitlines()] == ["r.yaml:6:1", "r.yaml:7:1", "2"]
    assert err.endswith("\n2 faults\n")


def test_a_traceback_is_shown_on_demand(folder, monkeypatch, capsys):
    monkeypatch.setenv("FTKIT_DEBUG", "1")
    assert status(monkeypatch, "config", "nothing") == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["trian"], 2, "Did you mean 'train'"),
        (["train"], 2, "Missing argument"),
        (["train", "x", "--lr", "3"], 2, "No such option"),
        (["check", "nothing.yaml"], 2, "no file and no built-in recipe 'nothing.yaml'"),
        (["check", "a=b"], 2, "no recipe is named"),
        (["--version"], 0, ""),
    ],
)
def test_the_command_itself(folder, arguments, code, words):
    done = process(*arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


# check


def test_check_of_a_valid_recipe(folder):
    result = run("check", "r.yaml")
    assert result.exit_code == 0
    assert result.stdout == "r.yaml: valid; sft, into runs/a\n"


def test_check_prints_faults_of_values_or_else_of_files(folder):
    (folder / "rows.jsonl").unlink()
    result = run("check", "r.yaml")
    assert result.exit_code == 2
    assert "r.yaml:3:15 data.train: there is no 'rows.jsonl'" in result.stderr
    assert run("check", "--no-files", "r.yaml").exit_code == 0


def test_check_of_several_recipes_with_overrides(folder):
    (folder / "bad.yaml").write_text(VALID.replace("lr:", "lrr:"))
    result = run("check", "r.yaml", "bad.yaml", "seed=x")
    assert result.exit_code == 2
    assert result.stderr.endswith("4 faults\n")
    assert "command line seed" in result.stderr


def test_check_as_json(folder):
    valid = json.loads(run("check", "r.yaml", "--json").stdout)
    assert valid == {
        "recipe": "r.yaml",
        "valid": True,
        "method": "sft",
        "run": "runs/a",
        "faults": [],
    }
    result = run("check", "r.yaml", "seed=x", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["faults"] == [
        {
            "place": "command line seed",
            "found": "'x' is text",
            "remedy": "write a whole number of at least 0",
        }
    ]


# config, schema, recipes


def test_config_shows_every_value_and_its_origin(folder):
    rows = json.loads(run("config", "r.yaml", "seed=5", "--json").stdout)
    assert rows["seed"] == {"value": 5, "origin": "command line"}
    assert rows["train.lr"] == {"value": 1e-4, "origin": "r.yaml:5:13"}
    assert rows["train.prompts"] == {"value": 32, "origin": "default"}
    lines = run("config", "r.yaml", "seed=5").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(rows)
    assert lines[1].split() == ["seed", "5", "command", "line"]


def test_schema_is_json(folder):
    assert "extends" in json.loads(run("schema").stdout)["properties"]


def test_recipes_are_listed_shown_and_copied_but_never_over_a_file(folder):
    names = json.loads(run("recipes", "list", "--json").stdout)
    assert list(names) == list(builtin_recipes())
    assert all(names.values())
    name = next(iter(names))
    text = builtin_recipes()[name].read_text(encoding="utf-8")
    assert name in run("recipes", "list").stdout
    assert run("recipes", "show", name).stdout == text
    assert run("recipes", "copy", name, "mine.yaml").exit_code == 0
    assert (folder / "mine.yaml").read_text(encoding="utf-8") == text
    assert load_recipe("mine.yaml").recipe == load_recipe(name).recipe
    (folder / "mine.yaml").write_text("precious")
    assert "is there already" in str(run("recipes", "copy", name, "mine.yaml").exception)
    assert (folder / "mine.yaml").read_text() == "precious"
    assert "cannot be written" in str(run("recipes", "copy", name, "no/where.yaml").exception)
    assert "did you mean" in str(run("recipes", "show", name + "x").exception)


# speed

PRINT_MODULES = """
import sys
sys.argv = ["ftkit", *sys.argv[1:]]
from ftkit.__main__ import main
try:
    main()
except SystemExit:
    print("\\nMODULES", *sys.modules)
"""


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        (["--help"], {"pydantic", "yaml", "rich"}),
        (["sft", "--help"], {"ftkit.objectives", "yaml", "rich"}),
        (["check", "r.yaml"], {"rich", "pydantic.v1"}),
        (["config", "r.yaml"], set()),
        (["schema"], set()),
        (["recipes", "list"], set()),
        (["train", "r.yaml", "--slurm", "--gpus", "1", "--dry-run"], set()),
    ],
)
def test_what_only_reads_loads_no_torch(folder, arguments, unneeded):
    command = [sys.executable, "-c", PRINT_MODULES, *arguments]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    modules = set(out.partition("MODULES")[2].split())
    assert not modules & (HEAVY | unneeded)


@pytest.mark.parametrize(("arguments", "limit"), [(["--help"], 0.3), (["check", "r.yaml"], 0.5)])
def test_what_only_reads_is_quick(folder, arguments, limit):
    """CPU seconds, best of five; twice the limit is let pass, since machines differ."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert process(*arguments).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 2 * limit
