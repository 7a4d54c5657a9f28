"""Runs of every method, on any number of ranks."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ftkit.recipe import load_recipe
from ftkit.tasks.train import train
from ftkit.train.checkpoint import Checkpoints

GRADED = {
    "sample": {"max_tokens": 4, "answers": 4},
    "verify": {"name": "format", "pattern": r"(?s)[ -~].*"},
}
SCORED = {
    "sample": {"max_tokens": 4, "answers": 2},
    "verify": {"name": "length", "soft": 1, "hard": 4},
}

RUNS = {
    "sft": {"train": {"prompts": 7}},
    "pretrain": {"method": {"name": "pretrain"}},
    "reward": {"method": {"name": "reward"}, "train": {"prompts": 5}},
    "dpo": {"method": {"name": "dpo"}, "train": {"prompts": 5}},
    "dft": {
        "method": {"name": "dft", "gamma": 0.5},
        "sample": {"max_tokens": 4, "answers": 3},
        "train": {"prompts": 5},
    },
    "grpo": {
        "method": {"name": "grpo", "beta": 0.1},
        "train": {"prompts": 5, "updates": 2},
        **GRADED,
    },
    "dapo": {
        "method": {"name": "grpo", "preset": "dapo", "refill": 1},
        "train": {"prompts": 4, "updates": 2},
        **GRADED,
    },
    "disco": {
        "method": {"name": "disco", "threshold": 0.5, "delta": 1e-6, "beta": 5.0},
        "train": {"prompts": 5, "updates": 2},
        **GRADED,
    },
    "ppo": {
        "method": {"name": "ppo", "beta": 0.1, "critic_lr": 0.1},
        "train": {"prompts": 3, "updates": 2},
        **SCORED,
    },
    "ppo-shared": {
        "method": {"name": "ppo", "critic": "shared", "beta": 0.1, "kl_in": "loss"},
        "train": {"prompts": 3, "updates": 2},
        **SCORED,
    },
    "trpo": {
        "method": {"name": "trpo", "cg_steps": 2, "tries": 3},
        "train": {"prompts": 5},
        **GRADED,
    },
}
"""Prompts that no number of ranks divides."""

SHARDED = {
    "zero_optimization": {
        "stage3_param_persistence_threshold": 0,
        "stage3_prefetch_bucket_size": 100,
        "stage3_max_live_parameters": 1000,
        "reduce_bucket_size": 1000,
    }
}
"""So small that the weights of a tiny model are really gathered and released."""

MODEL = {
    "init": {
        "architecture": "qwen2",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
    }
}

SHALLOW = {"init": {**MODEL["init"], "num_hidden_layers": 1}}
"""For what is not about which layer is gathered when."""

LEARNERS = ["sft", "dpo", "dft", "grpo", "disco", "ppo"]
LORA = {"r": 4, "alpha": 8.0, "targets": ["q_proj", "down_proj"]}

COUNTED = ("tokens", "trained", "step")
TIMES = ("seconds", "seconds_sampling")


def sections(name, files, **more):
    """The sections of a recipe: SGD and no clipping, which show a wrong scale that Adam hides."""
    found = {key: dict(value) for key, value in RUNS[name].items()}
    tuned = {} if name == "trpo" else {"optimizer": "sgd", "max_grad_norm": None}
    found["train"] = {"steps": 3, "micro_tokens": 40, **found.get("train", {}), **tuned}
    found["eval"] = {"every": None, "limit": 7}
    if name == "pretrain":
        texts = str(files / "texts.jsonl")
        found["data"] = {"train": texts, "eval": texts}
    if name in {"reward", "dpo"}:
        held_out = str(files / "held-out-pairs.jsonl")
        found["data"] = {"train": str(files / "pairs.jsonl"), "eval": held_out}
    for section, values in more.items():
        found[section] = {**found.get(section, {}), **values}
    if "model" in more:
        found["model"] = {**MODEL, "tokenizer": str(files / "tokenizer"), **more["model"]}
    return found


def trained(world, path, *overrides, resume=False):
    """Train a recipe on this rank; return the exit status."""
    loaded = load_recipe(str(path), overrides)
    return train(loaded, resume=resume, dry_run=False, world=world)


def metrics(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def evaluations(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "eval.jsonl").read_text().splitlines()]
    return [
        {k: v["value"] if isinstance(v, dict) and "value" in v else v for k, v in row.items()}
        for row in rows
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The trained weights and the optimizer's state of the newest checkpoint, whole."""
    stored = Checkpoints(folder / "checkpoints", 1).load().stored
    return {
        f"{name} {key}": stored.whole(name, key)
        for name in stored.names
        for key in ("weight", *sorted(stored.keys(name)))
    }


def memory(folder: Path) -> dict[str, list]:
    table = Checkpoints(folder / "checkpoints", 1).load().memory or {}
    return {name: values.tolist() for name, values in table.items()}
