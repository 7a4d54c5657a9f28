"""The folder of a run, as training leaves it, with a random model."""

from __future__ import annotations

import json

import pytest

from ftkit.data.template import stop_tokens
from ftkit.model.config import ModelConfig
from ftkit.model.load import load_policy
from ftkit.model.save import save_model
from ftkit.model.tokenizer import train_tokenizer

INIT = {
    "architecture": "qwen2",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}


@pytest.fixture(scope="session")
def made_run(tmp_path_factory):
    """RUN/recipe.yaml, RUN/data.json and RUN/model, whose weights are not the recipe's."""
    folder = tmp_path_factory.mktemp("made")
    tokenizer = train_tokenizer(["1+2=3 é"], 280)
    tokenizer.save_pretrained(folder / "tokenizer")
    rows = [{"prompt": f"{n}+1=", "completion": str(n + 1)} for n in range(9)]
    for name, part in (("train", rows[:3]), ("test", rows[3:]), ("other", rows[:2])):
        text = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(text)
    run = folder / "run"
    run.mkdir()
    tree = {
        "run": str(run),
        "method": {"name": "sft"},
        "data": {"train": str(folder / "train.jsonl"), "eval": str(folder / "test.jsonl")},
        "model": {"init": INIT, "tokenizer": str(folder / "tokenizer")},
        "train": {"lr": 0.1},
        "sample": {"max_tokens": 4},
        "verify": {"name": "exact"},
    }
    (run / "recipe.yaml").write_text(json.dumps(tree))
    (run / "data.json").write_text(json.dumps({"train": [{"masks": "boundary"}]}))
    config = ModelConfig(init=INIT, tokenizer=str(folder / "tokenizer"))
    policy = load_policy(config, tokenizer, micro_tokens=64, seed=1, trainable=False)
    save_model(policy, run / "model", stop_tokens(tokenizer))
    return run


@pytest.fixture
def run(made_run, monkeypatch):
    monkeypatch.setenv("FTKIT_CACHE", str(made_run.parent / "cache"))
    return made_run
