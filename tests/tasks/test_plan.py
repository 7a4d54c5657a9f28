"""``ftkit plan``: what it prints, what it refuses, and that nothing is loaded for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer
from typer.testing import CliRunner

from ftkit.cli import app
from ftkit.core.errors import UserError
from ftkit.core.group import Answer
from ftkit.data.config import DataConfig
from ftkit.data.load import load_datasets
from ftkit.data.pool import PoolWriter
from ftkit.data.provenance import pool_identity
from ftkit.plan.machine import GIB
from tests.tasks.conftest import INIT

ROOT = Path(__file__).parents[2]


def command(*arguments):
    """Run it in this process; a user's error is raised as it is."""
    done = CliRunner().invoke(app, ["plan", *map(str, arguments)], catch_exceptions=True)
    if isinstance(done.exception, UserError):
        raise done.exception
    return done


def as_json(*arguments):
    done = command(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture
def sft(run):
    return run / "recipe.yaml"


def test_json_says_all_of_it(sft):
    found = as_json(sft, "--memory", "1.5", "--gpus", "2")
    assert (found["method"], found["steps"], found["prompts"]) == ("sft", 1, 32)
    machine = {"kind": "cuda", "processes": 2, "memory": 1.5 * GIB}
    assert machine.items() <= found["machine"].items()
    tokens = found["tokens"]
    assert tokens["run"] == tokens["step"] == tokens["largest_step"]
    for phase, size in found["phases"].items():
        assert size == sum(part.get(phase, 0) for part in found["parts"].values())
    assert found["peak"] == found["phases"][found["phase"]] == max(found["phases"].values())
    assert found["host"] == sum(part["host"] for part in found["parts"].values())
    assert {"weights", "optimizer", "gradients", "activations"} <= set(found["parts"])
    assert (found["fits"], found["changes"], found["together"]) == (True, [], None)


def test_the_table_has_the_numbers_of_the_json(sft):
    found = as_json(sft, "--memory", "2")
    text = command(sft, "--memory", "2").stdout
    weights = next(line for line in text.splitlines() if line.startswith("weights"))
    assert weights.split()[1] == f"{found['parts']['weights']['learn'] / 2**20:,.0f}"
    assert f"{found['tokens']['run']:,} in all" in text
    assert "it fits" in text


def test_what_does_not_fit_is_said_with_what_to_change(sft):
    found = as_json(sft, "--memory", "0.5")
    assert found["fits"] is False
    saves = [change["saves"] for change in found["changes"]]
    assert saves
    assert saves == sorted(saves, reverse=True)
    for change in found["changes"]:
        assert change["peak"] == found["peak"] - change["saves"]
        assert change["fits"] == (change["peak"] <= GIB / 2)
    done = command(sft, "--memory", "0.5")
    assert done.exit_code == 0  # advice is no failure
    assert "it does not fit" in done.stdout
    for change in found["changes"]:
        assert change["change"] in done.stdout


@pytest.mark.parametrize("arguments", [("--gpus", "0"), ("--gpus", "x"), ("--memory", "x")])
def test_options_that_are_no_such_numbers(sft, arguments):
    done = command(sft, *arguments)
    assert done.exit_code == 2
    assert "Traceback" not in done.output


@pytest.mark.parametrize("memory", ["-1", "0", "nan"])
def test_memory_is_above_0(sft, memory):
    with pytest.raises(UserError, match=r"--memory: .* write a number above 0"):
        command(sft, f"--memory={memory}")


def test_a_recipe_that_is_not_there():
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        command("nowhere.yaml")


def test_rows_that_are_not_there(sft):
    with pytest.raises(UserError, match=r"data.train: there is no 'gone.jsonl'"):
        command(sft, "data.train=gone.jsonl")


def test_a_model_that_is_none(sft, run, tmp_path):
    tokenizer = f"model.tokenizer={run.parent / 'tokenizer'}"
    with pytest.raises(UserError, match=r"has no config.json or adapter_config.json"):
        command(sft, "model.init=null", f"model.path={tmp_path}", tokenizer)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "unheard_of"}, "no model can be loaded from it"),
        ({"model_type": "t5"}, "transformers makes no model of its t5 configuration"),
        ({"model_type": "qwen2", "num_attention_heads": 0}, "makes no model of its qwen2"),
        ("[", "no model can be loaded from it"),
    ],
)
def test_an_architecture_that_cannot_be_made(sft, run, tmp_path, config, said):
    text = config if isinstance(config, str) else json.dumps(config)
    (tmp_path / "config.json").write_text(text)
    tokenizer = f"model.tokenizer={run.parent / 'tokenizer'}"
    with pytest.raises(UserError, match=said):
        command(sft, "model.init=null", f"model.path={tmp_path}", tokenizer)


def test_a_reward_model_has_a_scalar_head_and_a_judge_is_counted(at):
    found = as_json(at / "reward" / "recipe.yaml", "--memory", "8")
    plain = as_json(at / "dpo" / "recipe.yaml", "--memory", "8")
    rows = len(AutoTokenizer.from_pretrained(at / "tokenizer"))
    fewer = (rows - 1) * INIT["hidden_size"] * 4  # the head is a vector
    weights = [each["parts"]["weights"]["learn"] for each in (found, plain)]
    assert weights[1] - weights[0] == fewer
    judge = f"{{name: model, path: {at / 'reward' / 'model'}}}"
    rollouts = ["sample={answers: 2, max_tokens: 4}", f"verify={judge}"]
    online = as_json(at / "run" / "recipe.yaml", "method={name: grpo}", *rollouts, "--memory", "8")
    assert online["parts"]["reward models"]["learn"] == weights[0]
    assert online["tokens"]["at_most"] is True


def test_negatives_are_counted_as_the_longest_of_their_prompt(run, tmp_path):
    base = run.parent
    tokenizer = AutoTokenizer.from_pretrained(base / "tokenizer")
    rows = load_datasets(DataConfig(train=str(base / "train.jsonl")), "pool", tokenizer, 0)
    ((own, _),) = rows.train
    groups = [
        group.with_answers(group.answers[0], *(Answer((1,) * (3 + n + k)) for k in range(3)))
        for n, group in enumerate(own)
    ]
    identity = pool_identity(tokenizer, [group.id for group in groups])
    writer = PoolWriter(tmp_path / "pool", identity, len(groups), len(groups))
    writer.write(0, groups)
    writer.finish()
    method = "method={name: dft, denominator: none, negatives: 2}"
    without = ["sample=null", "verify=null", "data.eval=null"]
    said = [method, f"data.pool={tmp_path / 'pool'}", "train.prompts=3", *without]
    found = as_json(run / "recipe.yaml", *said, "--memory", "8")
    longest = [3 + n + 2 for n in range(len(groups))]
    given = sum(len(group.prompt) + len(group.answers[0].tokens) for group in groups)
    assert found["tokens"]["step"] == given + 2 * sum(longest)


def test_a_reference_of_its_own_is_there_before_the_run(at):
    recipe, other = at / "dpo" / "recipe.yaml", at / "dpo" / "model"
    found = as_json(recipe, f"method={{name: dpo, reference: {other}}}", "--memory", "8")
    parts = found["parts"]
    assert parts["reference beforehand"]["before"] > parts["weights"]["before"]
    assert parts["gradients"]["before"] == parts["optimizer"]["before"] == 0
    assert "before" not in as_json(recipe, "--memory", "8")["phases"]


TRAIN = """
import json, resource, sys
import peft
from ftkit.train.folder import peak_memory
from ftkit.recipe import load_recipe
from ftkit.run import read_data
from ftkit.tasks.train import train
loaded = load_recipe(sys.argv[1])
read_data(loaded.recipe)
before = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
train(loaded, resume=False, dry_run=False)
print(json.dumps([before, peak_memory()["host"]]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read as Linux tells it")
def test_a_process_grows_as_planned(run, tmp_path):
    """14M parameters; glibc gives freed memory back, so that what is measured is what is held."""
    values = {"hidden_size": 768, "intermediate_size": 2048, "max_position_embeddings": 64}
    init = {**INIT, **values, "tie_word_embeddings": True}
    tree = json.loads((run / "recipe.yaml").read_text())
    tree |= {"run": str(tmp_path / "run"), "model": {**tree["model"], "init": init}}
    tree["train"] = {"lr": 1e-3, "steps": 2, "prompts": 3, "threads": 1}
    del tree["sample"], tree["verify"]
    path = tmp_path / "r.yaml"
    path.write_text(json.dumps(tree))
    found = as_json(path)
    environment = {"MALLOC_MMAP_THRESHOLD_": "131072", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, path],
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    before, peak = json.loads(done.stdout.splitlines()[-1])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["peak_memory_bytes"]["host"] <= peak
    apart = [found["parts"][name] for name in ("allocator", "libraries")]
    planned = max(
        size - sum(part.get(phase, 0) for part in apart) for phase, size in found["phases"].items()
    )
    assert planned == pytest.approx(peak - before, rel=0.2)
