"""The plan of a run against what the run holds, counted as it runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ftkit.plan.live import Live
from ftkit.run import build_loop, build_policy, read_data
from ftkit.verifiers.base import Verdict

APART = {"libraries", "allocator", "written model"}
"""Parts that no tensor is."""


class Alternating:
    """A judge to whom every second answer is right."""

    parts = ()

    def judge(self, items):
        return [
            Verdict("correct" if i % 2 else "incorrect", float(i % 2)) for i in range(len(items))
        ]


class Quiet:
    """Who hears what a run has to say."""

    def __getattr__(self, name):
        return lambda *_, **__: None


def run(loaded):
    """Take a run's steps; the most bytes that its tensors had in all steps but the first."""
    recipe = loaded.recipe
    torch.set_num_threads(1)
    data = read_data(recipe)
    Path(recipe.run).mkdir()
    quiet = {"journal": Quiet(), "display": Quiet(), "interrupt": SimpleNamespace(signal=None)}
    judge = Alternating() if recipe.method.kind == "rollouts" else None
    with Live() as live:
        policy = build_policy(recipe, data)
        loop = build_loop(recipe, data, policy, judge=judge, engine=None, **quiet)
        for step in range(data.steps):
            if step == 1:
                live.peak = live.now
            loop._step()
        return live.peak


CASES = [
    ("sft", []),
    ("sft", ["train.micro_tokens=4096"]),
    ("sft", ["model.dtype=bfloat16", "train.optimizer=sgd", "train.momentum=0.9"]),
    ("sft", ["model.checkpointing=true"]),
    ("sft", ["model.lora={r: 8}", "model.dtype=bfloat16"]),
    ("dpo", ["train.micro_tokens=128"]),
    ("reward", []),
    ("grpo", ["method.beta=0.1", "train.updates=2"]),
    ("ppo", []),
    ("ppo", ["method.critic=shared", "method.beta=0.1", "model.lora={r: 8}"]),
    ("trpo", ["method.cg_steps=2"]),
]


@pytest.mark.parametrize(("method", "overrides"), CASES, ids=lambda x: x if x else "-")
def test_a_run_holds_what_is_planned(recipe, planned, method, overrides):
    loaded = recipe(method, *overrides)
    found = planned(loaded)
    held = max(
        sum(part.during.get(phase, 0) for part in found.parts if part.name not in APART)
        for phase in found.phases
    )
    assert held == pytest.approx(run(loaded), rel=0.1)
