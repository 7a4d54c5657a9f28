"""What recipes of ppo and trpo may and must say."""

from __future__ import annotations

import pytest

from ftkit.core.errors import UserError
from ftkit.recipe import load_recipe, require_files
from tests.recipe.test_rules import JUDGED, faults

PPO = ("method.name=ppo", *JUDGED, "sample={answers: 2}")
SHARED = (*PPO, "method.critic=shared")
TRPO = ("method.name=trpo", *JUDGED, "sample={answers: 4}", "train={prompts: 3}")


@pytest.mark.parametrize(
    ("unread", "read"),
    [
        ([*PPO, "method.kl_in=loss"], [*PPO, "method.kl_in=loss", "method.beta=0.1"]),
        ([*PPO, "method.value_coef=0.1"], [*SHARED, "method.value_coef=0.1"]),
        ([*SHARED, "method.critic_lr=0.1"], [*PPO, "method.critic_lr=0.1"]),
        ([*SHARED, "method.critic_path=a"], [*PPO, "method.critic_path=a"]),
        *(
            ([*TRPO, f"train.{key}={value}"], [*PPO, f"train.{key}={value}"])
            for key, value in {
                "updates": 2,
                "rollout_epochs": 2,
                "lr": 0.1,
                "schedule": "linear",
                "warmup": 0.1,
                "min_lr": 0.1,
                "max_grad_norm": 2.0,
                "weight_decay": 0.1,
                "betas": [0, 0],
                "eps": 0.1,
            }.items()
        ),
    ],
)
def test_a_constant_that_a_run_does_not_read_cannot_be_set(write, valid, unread, read):
    (fault,) = faults(write(valid), unread).values()
    assert "would not be read: " in fault
    assert not faults("r.yaml", read)


def test_trpo_has_no_optimizer(write, valid):
    found = faults(write(valid), [*TRPO, "train.optimizer=sgd", "train.momentum=0.9"])
    assert set(found) == {"train.optimizer", "train.momentum"}
    assert all("by method.delta" in fault for fault in found.values())


def test_every_other_method_needs_a_rate(write, valid):
    write(valid)
    without = "train={prompts: 3}"
    for method in ("sft", "ppo"):
        said = [f"method.name={method}", *JUDGED, "sample={answers: 2}", without]
        (fault,) = faults("r.yaml", said).values()
        assert fault.endswith("train.lr: missing; write a number above 0")
    assert not faults("r.yaml", TRPO)
    resolved = load_recipe("r.yaml", TRPO).resolved()
    assert set(resolved["train"]) == {
        *("prompts", "micro_tokens", "epochs", "steps", "matmul", "threads", "until")
    }


def test_trpo_measures_in_float32(write, valid):
    found = faults(write(valid), [*TRPO, "model.dtype=bfloat16"])
    assert "rounds away the small KL" in found["model.dtype"]


def test_trpo_compares_answers_and_ppo_does_not(write, valid):
    found = faults(write(valid), [*TRPO, "sample.answers=1"])
    assert "trpo compares answers" in found["sample.answers"]
    assert not faults("r.yaml", [*PPO, "sample.answers=1"])


def test_a_critic_that_is_not_there(write, valid, folder):
    for name in ("rows.jsonl", "held-out.jsonl"):
        (folder / name).touch()
    write(valid)
    with pytest.raises(UserError, match=r"method.critic_path: there is no folder './r'"):
        require_files(load_recipe("r.yaml", [*PPO, "method.critic_path=./r"]))
    require_files(load_recipe("r.yaml", [*PPO, "method.critic_path=org/model"]))
