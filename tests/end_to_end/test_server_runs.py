"""``engine: vllm`` in whole runs, with servers that sample as vLLM would."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from ftkit.data.pool import open_pool
from ftkit.model.load import load_policy
from ftkit.model.tokenizer import load_tokenizer
from ftkit.recipe import load_recipe
from ftkit.tasks.evaluate import evaluate_command
from ftkit.tasks.gen_negatives import gen_negatives
from tests.end_to_end.conftest import Killed, lines, run
from tests.end_to_end.test_resume import kill_after
from tests.samplers.pretend import PretendServer

INSIDE = ("sample.engine=hf", "sample.vllm=null")
SAMPLE = {"max_tokens": 4, "answers": 4, "temperature": 0.7}
ASCII = {"name": "format", "pattern": "(?s)[ -~].*"}
"""One in three of a random model's answers begins so."""
TWICE = {"updates": 2, "prompts": 4, "steps": 4}
AGREEMENT = 1e-4
"""Nats a token by which server and trainer may differ."""


@pytest.fixture
def start(recipe):
    """Return a function that starts a server for the recipe's kind of model."""
    servers = []

    def start():
        config = load_recipe(str(recipe("shape"))).recipe.model
        policy = load_policy(config, load_tokenizer(config), micro_tokens=64)
        servers.append(PretendServer(policy.model))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def asks(server, **values):
    """A recipe's ``sample:`` with this server."""
    return {**SAMPLE, **values, "engine": "vllm", "vllm": {"server": server.url, "wait": 10.0}}


@pytest.fixture
def grpo(recipe):
    def make(name, server, save=3, **train):
        return recipe(
            name,
            method={"name": "grpo"},
            train={**TWICE, **train},
            sample=asks(server),
            verify=ASCII,
            eval={"every": None, "limit": 5},
            checkpoint={"every": save},
        )

    return make


def handed_over(server):
    return server.engine.calls.count("load")


def versions_of(folder):
    """The weights that wrote each rollout, by the step that it was sampled for."""
    rows = [row for row in lines(folder / "samples.jsonl") if row["decoding"] == "rollout"]
    assert len(rows) == 8 * len({row["step"] for row in rows})
    return {(row["step"], row["version"]) for row in rows}


def gaps(folder):
    rows = lines(folder / "metrics.jsonl")
    return {row["step"]: row["sampler_gap"] for row in rows if "sampler_gap" in row}


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


def test_a_run_learns_from_answers_of_its_own_weights(grpo, start, tmp_path):
    server = start()
    assert run(grpo("run", server)) == 0
    folder = tmp_path / "run"
    assert versions_of(folder) == {(1, 0), (3, 2)}
    assert gaps(folder).keys() == {1, 3}
    assert max(gaps(folder).values()) < AGREEMENT
    assert all(row["grad_norm"] > 0 for row in lines(folder / "metrics.jsonl"))
    assert handed_over(server) == 3, "for two rollouts, and the evaluation after the last step"
    assert server.tag.endswith("/4")
    learnt = weights(folder)
    theirs = server.engine.model.state_dict()
    assert all(torch.equal(theirs[name], learnt[name]) for name in learnt)
    assert not (tmp_path / ".run-weights").exists()


@pytest.mark.parametrize("save", [3, 4])
def test_a_resumed_run_hands_its_weights_over_again(  # noqa: PLR0917 (fixtures)
    grpo, start, tmp_path, monkeypatch, files, save
):
    """To a server that was started anew; the checkpoint is within a rollout, or between two."""
    first = start()
    straight = grpo("straight", first, save, steps=6)
    assert run(straight) == 0
    path = grpo("resumed", first, save, steps=6)
    kill_after(monkeypatch, 5)
    with pytest.raises(Killed):
        run(path)
    monkeypatch.undo()
    monkeypatch.setenv("FTKIT_CACHE", str(files / "cache"))
    second = restarted(first, start)
    assert run(path, resume=True) == 0
    one, other = tmp_path / "straight", tmp_path / "resumed"
    assert versions_of(other) == {(1, 0), (3, 2), (5, 4)}
    assert handed_over(second) == 2, "for the rollout after the checkpoint, and the evaluation"
    assert max(gaps(other).values()) < AGREEMENT
    assert lines(one / "metrics.jsonl") == lines(other / "metrics.jsonl")
    assert lines(one / "samples.jsonl") == lines(other / "samples.jsonl")
    assert all(torch.equal(weights(one)[name], w) for name, w in weights(other).items())


def restarted(server, start):
    """A server in the place of another, which knows nothing of it."""
    fresh = start()
    server.engine, server.tag = fresh.engine, "default"
    return server


def test_adapters_reach_the_server(grpo, recipe, start, tmp_path, files):
    short = {"eval": {"every": None}, "checkpoint": {"every": None}}
    run(recipe("base", train={"prompts": 2, "steps": 1, "lr": 1e-3}, **short))
    server = start()
    path = grpo("run", server, lr=3e-2)
    model = f"model={{path: {tmp_path / 'base/model'}, lora: {{r: 4}}}}"
    assert run(path, model, "method.beta=0.1") == 0
    assert max(gaps(tmp_path / "run").values()) < AGREEMENT
    base = weights(tmp_path / "base")
    theirs = server.engine.model.state_dict()
    moved = {name for name in base if not torch.allclose(theirs[name], base[name], atol=1e-5)}
    assert moved
    assert all("_proj" in name for name in moved)
    named = lines(tmp_path / "run/metrics.jsonl")
    assert named[0]["kl_reference"] == pytest.approx(0, abs=1e-6)
    assert named[-1]["kl_reference"] > 0


def measured(capsys, *arguments):
    capsys.readouterr()
    target, *overrides = map(str, arguments)
    nothing = {"data": None, "limit": None, "rows": None}
    evaluate_command(target, overrides, as_json=True, **nothing)
    return json.loads(capsys.readouterr().out)


def test_an_evaluation_by_a_server_is_that_by_the_model(grpo, start, tmp_path, capsys, recipe):
    """Greedy answers are equal; drawn ones are as many."""
    server = start()
    run(grpo("run", server))
    before, server.tag = server.tag, "default"
    found = measured(capsys, tmp_path / "run")
    inside = measured(capsys, tmp_path / "run", *INSIDE)
    assert server.tag.endswith("/0")
    assert server.tag.split("/")[0] != before.split("/")[0], "a run of its own"
    assert found["n"] == 20
    drawn = {name for name in found if name.endswith("_sampled") or name.startswith("pass@")}
    assert {"exact_match_sampled", "pass@2", "pass@4"} <= drawn
    assert {k: v for k, v in found.items() if k not in drawn} == {
        k: v for k, v in inside.items() if k not in drawn
    }
    assert drawn <= inside.keys()
    assert sum(found["verdicts_sampled"].values()) == 20 * 4
    assert not (tmp_path / ".run-weights").exists()


def test_negatives_by_a_server_are_the_models(recipe, start, tmp_path, files):
    """Without a system prompt what sampled an answer is what is learnt against."""
    server = start()
    path = recipe(
        "dft",
        method={"name": "dft"},
        data={"train": str(files / "test.jsonl"), "eval": None, "pool": str(tmp_path / "pool")},
        eval={"every": None, "limit": None},
        sample=asks(server, answers=3, temperature=1.0),
    )
    gen_negatives(load_recipe(str(path)), shard="1/1", held_out=None, source=None, as_json=True)
    pool = open_pool(str(tmp_path / "pool"), "sampler")
    answers = [one for i in range(len(pool)) for one in pool[i].answers[1:]]
    assert len(answers) == 20 * 3
    for one in answers:
        assert one.logps["sampler"] == pytest.approx(one.logps["prompt"], abs=4 * AGREEMENT)
    assert len({one.tokens for one in answers}) > 20
    assert pool.about["sample"]["engine"] == "vllm"
    assert handed_over(server) == 1
    assert server.tag.endswith("/0")
    assert not (tmp_path / ".pool-weights").exists()
