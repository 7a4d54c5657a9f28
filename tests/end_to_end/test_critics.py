"""ppo and trpo as whole runs: killed and resumed, bit for bit; where critics begin."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from ftkit.core.errors import UserError
from ftkit.model.load import load_policy, load_scorer
from ftkit.model.reader import bare
from ftkit.model.scalar import head_of
from ftkit.model.tokenizer import load_tokenizer
from ftkit.parallel.world import OneProcess
from ftkit.recipe import load_recipe
from ftkit.run_updates import build_critic, build_update
from tests.end_to_end.conftest import Killed, lines, run
from tests.end_to_end.test_resume import GRADED, SHARD, kill_after

SEVERAL = {"updates": 2, "rollout_epochs": 2, "steps": 7, "prompts": 3}

RUNS = {
    "own": {"method": {"name": "ppo", "beta": 0.1, "critic_lr": 3e-2}, "train": SEVERAL},
    "shared": {
        "method": {"name": "ppo", "critic": "shared", "beta": 0.1, "kl_in": "loss"},
        "train": SEVERAL,
    },
    "trpo": {
        "method": {"name": "trpo", "cg_steps": 1, "tries": 3},
        "train": {"prompts": 2, "steps": 4},
        "eval": {"every": None, "limit": 2},
    },
}


def sections(name):
    found = {**GRADED, **RUNS[name]}
    if name != "trpo":
        found["sample"] = {**GRADED["sample"], "answers": 1}
        found["verify"] = {"name": "length", "soft": 1, "hard": 4}  # a reward for every answer
    return found


def without_rates(path, name):
    """A recipe of trpo says nothing of learning rates."""
    if name == "trpo":
        path.write_text(path.read_text().replace("  lr: 0.01\n", ""))
    return path


def told(folder):
    rows = lines(folder / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]


@pytest.mark.parametrize(("name", "step"), [("own", 2), ("own", 5), ("shared", 3), ("trpo", 3)])
def test_killed_within_a_rollout_and_resumed(  # noqa: PLR0917 (fixtures)
    recipe, tmp_path, monkeypatch, files, name, step
):
    straight = without_rates(recipe("straight", **sections(name)), name)
    assert run(straight) == 0
    path = without_rates(recipe("resumed", **sections(name)), name)
    kill_after(monkeypatch, step)
    with pytest.raises(Killed):
        run(path)
    monkeypatch.undo()
    monkeypatch.setenv("FTKIT_CACHE", str(files / "cache"))
    assert run(path, resume=True) == 0
    folders = [tmp_path / name for name in ("straight", "resumed")]
    assert told(folders[0]) == told(folders[1])
    last = max((folders[0] / "checkpoints").glob("step-*")).name
    held = [load_file(f / "checkpoints" / last / SHARD) for f in folders]
    assert any(key.startswith("critic.") for key in held[0]) == (name != "trpo")
    assert any(key.endswith("|exp_avg_sq") for key in held[0]) == (name != "trpo")
    assert held[0].keys() == held[1].keys()
    assert all(torch.equal(held[0][key], held[1][key]) for key in held[0])


def test_what_a_run_tells(recipe, tmp_path):
    run(recipe(**sections("own")))
    rows = lines(tmp_path / "run/metrics.jsonl")
    every = {"lr", "reward", "kl", "kl_reference", "clipped", "entropy", "value_loss"}
    assert all(every <= row.keys() for row in rows)
    assert [row["step"] for row in rows if "explained_variance" in row] == [1, 5]  # of a rollout
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert rows[1]["kl"] != 0


def test_what_trpo_tells(recipe, tmp_path):
    run(without_rates(recipe(**sections("trpo")), "trpo"))
    rows = lines(tmp_path / "run/metrics.jsonl")
    every = {"kl", "step_fraction", "gain", "cg_residual", "reward", "entropy", "mixed"}
    assert all(every <= row.keys() and "lr" not in row for row in rows)
    assert all(0 <= row["kl"] <= 0.01 for row in rows)
    assert any(row["step_fraction"] > 0 and row["gain"] > 0 for row in rows)


@pytest.fixture
def trained(recipe, tmp_path):
    """A language model and a reward model in their folders."""
    pairs = str(tmp_path / "pairs.jsonl")
    (tmp_path / "pairs.jsonl").write_text(
        '{"prompt": "1+1=", "chosen": "2", "rejected": "3"}\n'
        '{"prompt": "1+2=", "chosen": "3", "rejected": "4"}\n'
    )
    short = {"train": {"steps": 1, "prompts": 2}, "checkpoint": {"every": None}, "eval": {}}
    run(recipe("sft", **short))
    data = {"train": pairs, "eval": pairs}
    run(recipe("reward", method={"name": "reward"}, data=data, **short))
    return tmp_path / "sft/model", tmp_path / "reward/model"


def built(recipe, *overrides, **values):
    loaded = load_recipe(str(recipe("ppo", **sections("own"), **values)), overrides).recipe
    tokenizer = load_tokenizer(loaded.model)
    policy = load_policy(loaded.model, tokenizer, micro_tokens=1000, seed=loaded.seed)
    critic = build_critic(loaded, policy)
    return loaded, policy, critic


def test_where_a_critic_begins(recipe, trained):
    """Its own body is the policy's, its head 0; or both are a reward model's."""
    model, reward = trained
    policy_at = f"model={{path: {model}}}"
    _, policy, critic = built(recipe, policy_at)
    mine, its = (bare(each.model).base_model.state_dict() for each in (policy, critic))
    assert all(torch.equal(mine[key], its[key]) for key in mine)
    assert not critic.head.weight.any()
    assert not {*map(id, policy.model.parameters())} & {*map(id, critic.model.parameters())}
    loaded, policy, critic = built(recipe, policy_at, f"method.critic_path={reward}")
    known = load_scorer(
        loaded.model.model_copy(update={"path": str(reward)}), policy.tokenizer, micro_tokens=1000
    )
    assert torch.equal(critic.head.weight, head_of(bare(known.model)).weight)
    assert critic.head.weight.any()


def test_a_shared_critic_is_a_head_alone(recipe, trained):
    loaded, policy, critic = built(recipe, "method={name: ppo, critic: shared}")
    assert critic.model is policy.model
    assert not critic.head.weight.any()
    _, update = build_update(loaded, policy, critic, OneProcess(), 1.0)
    assert len(update.weights) == len(list(policy.model.parameters())) + 1


def test_a_critic_of_other_tokens_is_refused(recipe, trained, files):
    other = trained[1]
    about = json.loads((other / "tokenizer.json").read_text())
    vocab = about["model"]["vocab"]
    vocab["1"], vocab["2"] = vocab["2"], vocab["1"]
    (other / "tokenizer.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"method.critic_path: the tokenizer of .* is not"):
        built(recipe, f"model={{path: {trained[0]}}}", f"method.critic_path={other}")
    with pytest.raises(UserError, match=r"method.critic_path: "):
        built(recipe, f"model={{path: {trained[0]}}}", f"method.critic_path={files}")
