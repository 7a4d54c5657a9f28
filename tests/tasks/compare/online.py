"""Online runs, made up, and what ``ftkit compare`` says of them."""

from __future__ import annotations

import copy
import json
import math
import random

import pytest

from ftkit.core.errors import UserError
from ftkit.recipe import dump_yaml
from ftkit.tasks.compare import compare

RECIPE = {
    "run": "",
    "seed": 0,
    "method": {"name": "grpo", "preset": None, "length": "answer", "clip_high": 0.2},
    "data": {"train": "train.jsonl", "eval": "test.jsonl"},
    "model": {"path": "runs/sft/model"},
    "train": {"prompts": 32, "lr": 1e-4, "steps": 100},
    "eval": {"every": 25},
}


def online(folder, *, seed=0, steps=100, every=25, gain=0.4, noise=0.06, method=None, **changed):
    """Write the files of a made-up online run: reward rises, entropy falls, answers grow."""
    rng = random.Random(f"{folder.name} {seed}")
    folder.mkdir(parents=True)
    tree = copy.deepcopy(RECIPE) | {"run": str(folder), "seed": seed}
    tree["method"] = {**tree["method"], **(method or {})}
    for key, value in changed.items():
        section, _, name = key.partition("__")
        tree[section] = {**tree[section], name: value} if name else value
    (folder / "recipe.yaml").write_text(dump_yaml(tree))
    metrics, evals = [], []
    for step in range(1, steps + 1):
        done = 1 - math.exp(-3 * step / steps)
        length = 40 + 12 * gain * done + rng.gauss(0, 1)
        metrics.append(
            {
                "step": step,
                "loss": rng.gauss(-0.01, 0.02),
                "grad_norm": rng.random(),
                "lr": 1e-4,
                "tokens": int(256 * length),
                "reward": 0.3 + gain * done + rng.gauss(0, noise),
                "entropy": 0.9 * math.exp(-2.2 * gain * done) + rng.gauss(0, 0.01),
                "kl": 2e-4 * (1 + done) * abs(1 + rng.gauss(0, 0.2)),
                "length": length,
                "seconds": 1.0,
            }
        )
        if step % every == 0:
            right = 0.35 + 0.9 * gain * done + rng.gauss(0, 0.01)
            evals.append({"step": step, "n": 400, "exact_match": figure(right, 0.045)})
            evals[-1]["exact_match_sampled"] = figure(right - 0.1, 0.03)
    write(folder / "metrics.jsonl", metrics)
    write(folder / "eval.jsonl", evals)
    summary = {"status": "finished", "reason": "steps", "step": steps, "steps": steps}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def figure(value, reach):
    return {"value": value, "interval": [value - reach, value + reach]}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


OPTIONS = {
    "out": "compare",
    "metrics": "reward",
    "smooth": None,
    "each": False,
    "over": None,
}


def faults(*runs, **options):
    with pytest.raises(UserError) as error:
        compare([str(run) for run in runs], **{**OPTIONS, "as_json": True, **options})
    return [str(fault) for fault in error.value.faults]


def rows(folder, name="metrics"):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
