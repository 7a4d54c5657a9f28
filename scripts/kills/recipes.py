"""What is trained while ranks are killed: sums of two digits by a model of two small layers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ftkit.model.tokenizer import train_tokenizer

METHODS: dict[str, dict[str, Any]] = {
    "sft": {},
    "dft": {
        "method": {"name": "dft", "gamma": 0.5},
        "sample": {"max_tokens": 4, "answers": 3},
    },
    "grpo": {
        "method": {"name": "grpo", "beta": 0.1},
        "train": {"prompts": 4, "updates": 2},
        "sample": {"max_tokens": 4, "answers": 4},
        "verify": {"name": "format", "pattern": r"(?s)[ -~].*"},
        "checkpoint": {"every": 3},  # within a rollout
    },
}
SMALL = {
    "zero_optimization": {
        "stage3_param_persistence_threshold": 0,
        "stage3_prefetch_bucket_size": 100,
        "stage3_max_live_parameters": 1000,
        "reduce_bucket_size": 1000,
    }
}
"""So that the weights of a small model are really gathered and released."""


def prepare(folder: Path) -> None:
    """Write rows, a tokenizer, and DeepSpeed's settings into a folder."""
    sums = [(a, b) for a in range(10) for b in range(10)]
    rows = [{"prompt": f"{a}+{b}=", "completion": f"{a + b}"} for a, b in sums]
    _write_rows(folder / "train.jsonl", rows[:80])
    _write_rows(folder / "test.jsonl", rows[80:])
    texts = [row["prompt"] + row["completion"] for row in rows]
    train_tokenizer(texts, 280, split_digits=True).save_pretrained(folder / "tokenizer")
    (folder / "deepspeed.json").write_text(json.dumps(SMALL))


def write_recipe(folder: Path, name: str, zero: int) -> Path:
    """Write the recipe of a method at a stage of ZeRO; return its file."""
    tree: dict[str, Any] = {
        "run": str(folder / f"{name}-{zero}"),
        "method": {"name": name},
        "data": {
            "train": str(folder / "train.jsonl"),
            "eval": str(folder / "test.jsonl"),
            "max_length": 32,
        },
        "model": {
            "init": {
                "architecture": "qwen2",
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "intermediate_size": 48,
            },
            "tokenizer": str(folder / "tokenizer"),
        },
        "train": {"prompts": 8, "steps": 8, "lr": 1.0e-2, "threads": 1},
        "eval": {"every": 3, "limit": 10},
        "checkpoint": {"every": 2},
        "parallel": {"zero": zero},
    }
    if zero:
        tree["parallel"]["deepspeed"] = str(folder / "deepspeed.json")
    for section, values in METHODS[name].items():
        tree[section] = {**tree.get(section, {}), **values}
    if name == "dft":
        tree["data"]["pool"] = str(folder / "pool")
    path = folder / f"{name}-{zero}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def _write_rows(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
