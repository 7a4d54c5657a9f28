"""``ftkit serve``: the command that it runs, and what it refuses."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoConfig
from typer.testing import CliRunner

from ftkit.__main__ import main
from ftkit.cli import app
from ftkit.model.load import load_policy
from ftkit.model.tokenizer import load_tokenizer
from ftkit.recipe import load_recipe
from ftkit.samplers.vllm.sampler import SHORTEST
from ftkit.samplers.vllm.server import MODEL
from ftkit.tasks import serve as task
from tests.tasks.conftest import INIT

POSITIONS = 200
WHOLE = 20 + 10 + task.MARKS


@pytest.fixture
def recipe(made_run, tmp_path):
    """A recipe of dft whose answers may have 10 tokens, to prompts with demonstrations of 20."""
    tree = json.loads((made_run / "recipe.yaml").read_text())
    tree["run"], tree["method"] = str(tmp_path / "run"), {"name": "dft"}
    tree["model"]["init"] = {**INIT, "max_position_embeddings": POSITIONS}
    tree["data"] |= {"pool": str(tmp_path / "none"), "max_length": 20}
    tree["sample"] = {"max_tokens": 10, "answers": 2}
    path = tmp_path / "r.yaml"
    path.write_text(json.dumps(tree))
    return str(path)


def told(recipe, *arguments):
    """The words of the command that would be run, and its environment."""
    result = CliRunner().invoke(app, ["serve", recipe, "--dry-run", *arguments])
    assert result.exit_code == 0, result.output
    words = shlex.split(result.stdout)
    first = words.index(sys.executable)
    return words[first:], dict(word.split("=", 1) for word in words[:first])


def option(words, name):
    (at,) = (i for i, word in enumerate(words) if word == name)
    return words[at + 1]


@pytest.mark.parametrize(
    ("overrides", "longest"),
    [
        ([], 20 + 10),
        (["sample.max_tokens=11", "data.max_length=21"], 21 + 11),
        (["sample.system=['four', 'naïve']"], WHOLE + 6),  # bytes, of the longest
        (["sample.system=['a', {text: 'abcdefghi', weight: 2}]"], WHOLE + 9),
        (["data.max_length=191"], POSITIONS),
        (["data.max_length=190"], POSITIONS),
        (["data.max_length=189"], POSITIONS - 1),
        (["data.max_length=3", "sample.max_tokens=2"], SHORTEST),  # the probe's
    ],
)
def test_the_longest_row_is_prompt_answer_and_system_prompt(recipe, overrides, longest):
    assert option(told(recipe, *overrides)[0], "--max-model-len") == str(longest)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_precision_is_the_recipes(recipe, dtype):
    assert option(told(recipe, f"model.dtype={dtype}")[0], "--dtype") == dtype


def test_what_runs_rely_on_is_said(recipe):
    words, environment = told(recipe)
    assert words[:3] == [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    assert environment["VLLM_SERVER_DEV_MODE"] == "1"
    assert option(words, "--served-model-name") == MODEL
    assert option(words, "--load-format") == "dummy"
    assert option(words, "--logprobs-mode") == "processed_logprobs"
    module, _, name = option(words, "--worker-extension-cls").rpartition(".")
    assert callable(getattr(importlib.import_module(module), name).take_weights)
    assert {"--tokens-only", "--skip-tokenizer-init"} <= set(words)


@pytest.mark.parametrize(("answers", "at_once"), [(2, task.AT_ONCE), (300, 300)])
def test_all_answers_to_a_prompt_are_written_at_once(recipe, answers, at_once):
    words, _ = told(recipe, f"sample.answers={answers}")
    assert option(words, "--max-num-seqs") == str(at_once)


def test_further_options_are_vllms_and_values_are_the_recipes(recipe):
    further = ["--tensor-parallel-size", "2", "--gpu-memory-utilization=0.5"]
    given = ["--port", "8123", *further[:2], "sample.max_tokens=12", further[2], "--host", "::1"]
    words, _ = told(recipe, *given)
    assert words[-7:] == ["--host", "::1", "--port", "8123", *further]
    assert option(words, "--max-model-len") == str(20 + 12)
    usual, _ = told(recipe)
    assert usual[-4:] == ["--host", "127.0.0.1", "--port", "8000"]


@pytest.fixture
def started(recipe, monkeypatch):
    """Return a function that serves as if vLLM were here, and returns what it was started on."""

    def start(*overrides):
        found = {}

        def instead(command):
            folder = Path(option(command, "--model"))
            found.update(folder=folder, files={f.name for f in folder.iterdir()})
            found["config"] = AutoConfig.from_pretrained(folder)
            return 7

        monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
        monkeypatch.setattr(task, "_run", instead)
        result = CliRunner().invoke(app, ["serve", recipe, *overrides])
        assert result.exit_code == 7
        assert not result.stdout
        return found

    return start


def test_vllm_is_started_on_the_recipes_model_without_its_weights(started, recipe, tmp_path):
    found = started()
    config = load_recipe(recipe).recipe.model
    model = load_policy(config, load_tokenizer(config), micro_tokens=64).model
    assert found["config"].architectures == [type(model).__name__]
    sizes = {"vocab_size", "hidden_size", "num_hidden_layers", "num_key_value_heads"}
    sizes |= {"tie_word_embeddings", "max_position_embeddings", "dtype"}
    for size in sizes:
        assert getattr(found["config"], size) == getattr(model.config, size)
    assert "config.json" in found["files"]
    assert not any(name.endswith((".safetensors", ".bin")) for name in found["files"])
    assert found["folder"] == tmp_path / ".run-server"
    assert option(told(recipe)[0], "--model") == str(found["folder"]), "who starts it otherwise"


def test_a_folder_is_described_like_the_model_in_it(started, run):
    found = started(f"model={{path: {run / 'model'}}}")
    saved = AutoConfig.from_pretrained(run / "model")
    assert found["config"].architectures == saved.architectures
    assert found["config"].vocab_size == saved.vocab_size


def ended(monkeypatch, capsys, *arguments):
    """The exit status of the whole command, and what it wrote to stderr."""
    monkeypatch.setattr(sys, "argv", ["ftkit", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code, capsys.readouterr().err


def test_without_vllm_nothing_is_started(recipe, monkeypatch, capsys):
    whole = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "vllm" else whole(name)
    )
    status, said = ended(monkeypatch, capsys, "serve", recipe)
    assert status == 2
    (line,) = said.splitlines()
    assert line.startswith("ftkit serve: vllm is not installed here; install it: pip install vllm")


def test_a_recipe_that_does_not_say_how_answers_are_sampled(recipe, monkeypatch, capsys):
    tree = json.loads(Path(recipe).read_text())
    del tree["sample"]
    Path(recipe).write_text(json.dumps(tree))
    status, said = ended(monkeypatch, capsys, "serve", recipe, "--dry-run")
    assert status == 2
    assert said == f"{recipe}:1:1 sample: missing; write how answers are sampled\n"
    status, said = ended(monkeypatch, capsys, "serve", recipe, "sample=null", "--dry-run")
    assert (status, said.split(":")[0]) == (2, "command line sample")


@pytest.fixture
def handlers():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(
    ("shell", "status"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("kill -9 $$", 128 + 9),
        ('test "$VLLM_SERVER_DEV_MODE" = 1', 0),
        ("sleep 0.3; kill -TERM $PPID; sleep 20 & wait", 128 + 15),  # as a user does
    ],
)
def test_its_status_is_vllms_and_signals_reach_it(shell, status):
    assert task._run(["sh", "-c", shell]) == status


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(
    ("end", "status"), [("kill -TERM $PPID; wait", 128 + 15), ("kill -9 $$", 128 + 9)]
)
def test_all_processes_of_vllm_end_with_it(tmp_path, end, status):
    """By a user's signal, or where the first of them dies and leaves others behind."""
    file = tmp_path / "pid"
    shell = f"sleep 20 & echo $! > {file}; sleep 0.3; {end}"
    assert task._run(["sh", "-c", shell]) == status
    state = Path(f"/proc/{file.read_text().strip()}/stat")
    deadline = time.monotonic() + 10
    while state.exists() and state.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.02)
