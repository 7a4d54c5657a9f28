"""A folder with rows, pairs, a tokenizer and a model, and recipes that name them."""

from __future__ import annotations

import json
import random

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from ftkit.model.tokenizer import train_tokenizer
from ftkit.plan.estimate import estimate
from ftkit.plan.machine import GIB, Machine
from ftkit.plan.models import Shelf
from ftkit.recipe import load_recipe
from ftkit.run import read_data

VALUES = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 176,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}
SAMPLE = {"answers": 4, "max_tokens": 16}


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planned")
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 6))) for _ in range(300)]

    def text(least, most):
        return " ".join(draw.choices(words, k=draw.randint(least, most)))

    tokenizer = train_tokenizer([text(300, 300) for _ in range(9)], 600)
    tokenizer.save_pretrained(folder / "base")
    rows = [{"prompt": text(4, 6), "completion": text(20, 22), "truth": "1"} for _ in range(24)]
    pairs = [
        {"prompt": r["prompt"], "chosen": r["completion"], "rejected": text(20, 22)} for r in rows
    ]
    for name, content in (("rows", rows), ("pairs", pairs)):
        lines = "".join(json.dumps(row) + "\n" for row in content)
        (folder / f"{name}.jsonl").write_text(lines)
    config = AutoConfig.for_model("qwen2", vocab_size=len(tokenizer), **VALUES)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "base")
    config.num_labels = 1
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder / "reward")
    tokenizer.save_pretrained(folder / "reward")
    return folder


@pytest.fixture
def recipe(made, tmp_path, monkeypatch):
    """Return a function that writes a recipe and reads it: ``make("sft", key=value ...)``."""
    monkeypatch.setenv("FTKIT_CACHE", str(made / "cache"))

    def make(method="sft", *overrides, **sections):
        rows = "pairs" if method in {"dpo", "reward"} else "rows"
        tree = {
            "run": str(tmp_path / "run"),
            "method": {"name": method},
            "data": {"train": str(made / f"{rows}.jsonl")},
            "model": {"path": str(made / "base")},
            "train": {"prompts": 6, "steps": 2, "lr": 1e-3, "micro_tokens": 200, "threads": 1},
        }
        if method in {"grpo", "ppo", "trpo", "disco"}:
            tree |= {"sample": SAMPLE, "verify": {"name": "exact"}}
        if method == "trpo":
            del tree["train"]["lr"]
        for section, values in sections.items():
            tree[section] = {**tree.get(section, {}), **values}
        path = tmp_path / "r.yaml"
        path.write_text(json.dumps(tree))
        return load_recipe(str(path), overrides)

    return make


@pytest.fixture
def planned():
    """Return a function from a recipe to what it takes on some machine."""

    def plan(loaded, kind="cpu", processes=1, memory=64 * GIB):
        data = read_data(loaded.recipe)
        machine = Machine(kind, processes, memory, memory, "a test")
        return estimate(loaded.recipe, data, machine, Shelf(data.tokenizer))

    return plan


def part_of(found, name, phase="learn"):
    """Bytes of a part in a phase; 0 where it is not there."""
    sizes = [part.during.get(phase, 0) for part in found.parts if part.name == name]
    return sum(sizes)
