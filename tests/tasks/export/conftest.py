"""Runs to be exported: with adapters that are random, and as training leaves them."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml
from transformers import (
    AutoTokenizer,
)

from ftkit.model.config import ModelConfig
from ftkit.model.load import load_policy, load_scorer
from ftkit.model.save import save_model
from ftkit.model.tokenizer import load_tokenizer
from ftkit.tasks.export import export
from tests.tasks.conftest import INIT

R, ALPHA = 2, 6.0
SEVERAL = {"prompts": 3, "steps": 4, "lr": 0.1, "threads": 1}
AS_IT_IS = {"out": None, "merge": True, "dtype": None, "checkpoint": None, "as_json": True}


def made(folder, capsys=None, **options):
    """Export; return the folder and what was printed."""
    export(str(folder), **{**AS_IT_IS, **options})
    return json.loads(capsys.readouterr().out.splitlines()[-1]) if capsys else None


def write_recipe(folder, **sections):
    tree = {
        "run": str(folder),
        "method": {"name": "sft"},
        "data": {"train": str(folder.parent / "train.jsonl"), "max_length": 32},
        "train": SEVERAL,
        **sections,
    }
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    return folder / "recipe.yaml"


@pytest.fixture(scope="session")
def place(made_run, tmp_path_factory):
    """Rows, a tokenizer, a base, and one whose head is its embeddings."""
    folder = tmp_path_factory.mktemp("export")
    shutil.copytree(made_run / "model", folder / "base")
    shutil.copy(made_run.parent / "train.jsonl", folder)
    tokenizer = load_tokenizer(ModelConfig(path=str(folder / "base")))
    config = ModelConfig(init={**INIT, "tie_word_embeddings": True})
    save_model(load_policy(config, tokenizer, micro_tokens=64), folder / "tied", [1])
    return folder


@pytest.fixture
def adapted(place, tmp_path):
    """Return a function that makes a run whose adapters are random: its folder."""
    shutil.copy(place / "train.jsonl", tmp_path)

    def make(base="base", dtype="float32", size=0.2, targets="all-linear", method="sft", **form):
        lora = {"r": R, "alpha": ALPHA, "targets": targets}
        model = {"path": str(place / base), "dtype": dtype, "lora": lora, **form}
        write_recipe(tmp_path / "run", method={"name": method}, model=model)
        config = ModelConfig.model_validate(model)
        load = load_scorer if method == "reward" else load_policy
        reader = load(config, load_tokenizer(config), micro_tokens=64)
        torch.manual_seed(0)
        for name, weight in reader.model.named_parameters():
            if weight.requires_grad:
                torch.nn.init.normal_(weight, std=size if "lora_B" in name else 0.2)
        save_model(reader, tmp_path / "run" / "model", [reader.tokenizer.eos_token_id])
        return tmp_path / "run"

    return make


def logits(model, rows):
    with torch.no_grad():
        return [model(input_ids=row[None]).logits[0] for row in rows]


def the_rows(place):
    """The training rows as they are tokenized: prompt, answer, EOS."""
    tokenizer = AutoTokenizer.from_pretrained(place / "base")
    rows = [json.loads(line) for line in (place / "train.jsonl").read_text().splitlines()]
    ids = [
        tokenizer(row["prompt"]).input_ids + tokenizer(row["completion"]).input_ids for row in rows
    ]
    return [torch.tensor([*one, tokenizer.eos_token_id]) for one in ids]
