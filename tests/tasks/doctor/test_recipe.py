"""What a recipe lacks on a machine."""

from __future__ import annotations

import importlib.util
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from huggingface_hub import constants

from ftkit.model.config import LoraConfig, ModelConfig
from ftkit.model.load import load_policy
from ftkit.model.tokenizer import load_tokenizer
from ftkit.recipe import load_recipe
from ftkit.tasks.doctor import hub, inside, wanted
from ftkit.tasks.doctor.devices import GPU
from ftkit.tasks.doctor.finding import BrokenError
from tests.tasks.doctor.conftest import by_what, torch_says, write


@pytest.fixture
def loaded(made_run, tmp_path):
    """Return a function that gives a recipe, with sections changed."""

    def make(*overrides, **sections):
        tree = json.loads((made_run / "recipe.yaml").read_text())
        tree |= {"run": str(tmp_path / "run"), "model": {"path": str(made_run / "model")}}
        (tmp_path / "r.yaml").write_text(json.dumps({**tree, **sections}))
        return load_recipe(str(tmp_path / "r.yaml"), overrides)

    return make


def test_files_that_are_missing_are_problems_with_their_place(loaded):
    (told,) = wanted.files(loaded())
    assert (told.level, told.found) == ("ok", "all are there")
    found = list(wanted.files(loaded("data.train=nothing.jsonl", "model.path=./no/model")))
    assert [each.level for each in found] == ["problem", "problem"]
    assert [each.what for each in found] == ["command line data.train", "command line model.path"]


def test_libraries_and_programs_that_only_some_recipes_need(loaded, monkeypatch, tmp_path):
    there = {"tensorboard", "vllm"}
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: find("json") if name in there else None
    )
    recipe = loaded("log=[jsonl,tensorboard]", "sample.engine=vllm").recipe
    assert {each.level for each in wanted.extras(recipe)} == {"ok"}
    there.clear()
    found = by_what(wanted.extras(recipe))
    assert found["log"].level == "problem"
    assert found["sample.engine"].found == "vllm is not installed here"
    elsewhere = loaded("sample.engine=vllm", "sample.vllm={server: 'http://h:1'}").recipe
    assert "sample.engine" not in by_what(wanted.extras(elsewhere))
    monkeypatch.setenv("PATH", str(tmp_path))
    proofs = loaded(verify={"name": "proof", "system": "coq"}).recipe
    found = by_what(wanted.extras(proofs))
    assert found["verify.command"].found == "no program coqc on PATH"


class Healthy(BaseHTTPRequestHandler):
    """A server that answers everything."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        """Say nothing."""


def test_servers_that_do_not_answer_are_problems(loaded):
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        good = f"http://127.0.0.1:{server.server_port}"
        vllm = f"sample.vllm={{server: ['{good}/', 'http://127.0.0.1:1']}}"
        judges = [{"name": "http", "url": f"{good}/judge"}, {"name": "exact"}]
        recipe = loaded("sample.engine=vllm", vllm, verify=judges).recipe
        found = list(wanted.servers(recipe))
        server.shutdown()
    assert [each.level for each in found] == ["ok", "problem", "ok"]
    assert found[1].found == "http://127.0.0.1:1 does not answer"
    assert [each.level for each in wanted.servers(recipe)] == ["problem"] * 3


def gpu(capability):
    return GPU("0", "x", 2.0**36, 0.0, capability, "550")


@pytest.mark.parametrize(
    ("gpus", "said", "level"),
    [
        ([gpu(9.0)], {"gpus": [1], "bfloat16": True}, "ok"),
        ([gpu(9.0), gpu(7.5)], {"gpus": [1, 1], "bfloat16": True}, "problem"),
        ([gpu(None)], {"gpus": [1], "bfloat16": False}, "problem"),
        ([], {"gpus": [1], "bfloat16": False}, "problem"),
        ([], {"gpus": []}, "note"),
    ],
)
def test_gpus_without_bfloat16(loaded, gpus, said, level):
    half = loaded("model.dtype=bfloat16").recipe
    (told,) = wanted.precision(half, gpus, torch_says(**said))
    assert told.level == level
    assert not list(wanted.precision(loaded().recipe, gpus, torch_says(**said)))


@pytest.mark.parametrize(
    ("overrides", "gpus", "needed"),
    [
        ([], 1, False),
        ([], 2, True),
        (["parallel.zero=3"], 0, True),
        (["parallel.zero=1", "parallel.offload=optimizer"], 1, True),
    ],
)
def test_deepspeed_is_needed_by_several_gpus_or_zero(loaded, module, overrides, gpus, needed):
    module("deepspeed", "raise ImportError('no CUDA_HOME')")
    found = list(wanted.engine(loaded(*overrides).recipe, gpus))
    assert len(found) == needed
    if needed:
        assert found[0].level == "problem"
        assert "ImportError: no CUDA_HOME" in found[0].found
        module("deepspeed", "__version__ = '0.19.9'")
        (told,) = wanted.engine(loaded(*overrides).recipe, gpus)
        assert (told.level, told.found.split(": ")[-1]) == (
            "ok",
            "DeepSpeed 0.19.9 can be imported",
        )


def test_an_optimizer_in_host_memory_needs_a_compiler(loaded, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert not list(wanted.compiled(loaded().recipe))
    found = list(wanted.compiled(loaded("parallel={zero: 1, offload: optimizer}").recipe))
    assert {each.level for each in found} == {"problem"}
    assert "C++ compiler: none" in found[0].found


# checkpoints


@pytest.mark.parametrize(
    ("overrides", "bytes_needed"),
    [
        # keep 2, one being written: 3 of them; the model in the recipe's precision
        ([], 3 * 100 * (4 + 8) + 100 * 4),
        (["model.dtype=bfloat16"], 3 * 100 * (4 + 8) + 100 * 2),
        (["checkpoint.keep=5", "checkpoint.best=eval.loss"], 7 * 100 * (4 + 8) + 2 * 100 * 4),
        (["train.optimizer=sgd"], 3 * 100 * 4 + 100 * 4),
        (["train.optimizer=sgd", "train.momentum=0.9"], 3 * 100 * (4 + 4) + 100 * 4),
    ],
)
def test_what_checkpoints_take(loaded, overrides, bytes_needed):
    need, _ = wanted.needed(loaded(*overrides).recipe, {"all": 200, "trained": 100})
    assert need == bytes_needed


def test_weights_are_counted_without_loading_any(loaded, made_run, monkeypatch):
    """All that the optimizer changes, with adapters; and what is free is compared with them."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(wanted, "ask", lambda what, given: inside.FUNCTIONS[what](given))
    recipe = loaded("model.lora={r: 3}").recipe
    config = ModelConfig(path=str(made_run / "model"), lora=LoraConfig(r=3))
    policy = load_policy(config, load_tokenizer(config), micro_tokens=64)
    trained = sum(p.numel() for p in policy.model.parameters() if p.requires_grad)
    need, _ = wanted.needed(recipe, {"trained": trained})
    for free, level in ((need - 1, "problem"), (2 * need - 1, "note"), (2 * need, "ok")):
        (told,) = wanted.checkpoints(recipe, free)
        assert told.level == level
        assert f"3 checkpoints of {trained:,} weights, 12 bytes each" in told.found


def test_where_weights_cannot_be_counted_that_is_told(loaded, monkeypatch):
    def broken(what, given):
        raise BrokenError("status 1: no")

    monkeypatch.setattr(wanted, "ask", broken)
    (told,) = wanted.checkpoints(loaded("model={path: org/model}").recipe, 2**30)
    assert told.level == "note"
    assert told.found.endswith("org/model is not in the cache, or not whole; 1 GiB are free")
    (told,) = wanted.checkpoints(loaded().recipe, 2**30)
    assert told.found == "not known what they take: status 1: no; 1 GiB are free"


# the hub


def test_models_of_the_hub_are_looked_up_in_the_cache(loaded, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    recipe = loaded("model={path: org/model}").recipe
    (told,) = hub.models(recipe)
    assert (told.level, told.found) == ("note", "org/model is not in the cache: the run fetches it")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (told,) = hub.models(recipe)
    assert told.level == "problem"
    assert told.remedy.endswith("hf download org/model")
    assert by_what(hub.hub())["HF_HUB_OFFLINE"].found == "set: nothing is fetched"
    folder = tmp_path / "hub" / "models--org--model"
    write(folder / "refs" / "main", "abc")
    write(folder / "snapshots" / "abc" / "config.json", "{}")
    (told,) = hub.models(recipe)
    assert (told.level, told.found) == ("ok", "org/model is in the cache")
    rows = loaded("model={path: org/model}", "data.train=hf:org/rows").recipe
    assert by_what(hub.models(rows))["data.train"].level == "note"
    assert not list(hub.models(loaded().recipe))
