"""Compare what ``ftkit plan`` says with the memory that runs take: on a CPU, each a process.

A model of 34M parameters learns from random words for two steps.  What a process has before a model
is loaded is taken off its peak.  Each case is run twice: with glibc told to give freed memory back
at once, which shows what the run holds, and as it is, with the gaps that glibc leaves.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RETURNED = {"MALLOC_MMAP_THRESHOLD_": "131072"}
"""What has glibc give each tensor pages of its own."""
MIB = 2**20

INIT = {
    "architecture": "qwen2",
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 9,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
VOCABULARY = 8192
SAMPLED = {
    "sample": {"answers": 4, "max_tokens": 100},
    "verify": {"name": "format", "pattern": r"(?s) ?[a-m].*"},  # which some random answers meet
}
CASES: dict[str, dict[str, Any]] = {
    "sft": {},
    "sft, bfloat16": {"model": {"dtype": "bfloat16"}},
    "sft, checkpointing": {"model": {"checkpointing": True}},
    "sft, LoRA": {"model": {"lora": {"r": 16}}},
    "sft, LoRA, bfloat16": {"model": {"lora": {"r": 16}, "dtype": "bfloat16"}},
    "sft, sgd, all in one part": {
        "train": {"optimizer": "sgd", "micro_tokens": 4096, "prompts": 3}
    },
    "dpo": {"method": {"name": "dpo"}},
    "reward": {"method": {"name": "reward"}},
    "grpo": {"method": {"name": "grpo"}, **SAMPLED},
    "grpo with a reference": {"method": {"name": "grpo", "beta": 0.1}, **SAMPLED},
    "ppo": {"method": {"name": "ppo"}, **SAMPLED},
    "ppo, shared critic": {"method": {"name": "ppo", "critic": "shared"}, **SAMPLED},
    "trpo": {"method": {"name": "trpo", "cg_steps": 2}, **SAMPLED},
}


def main() -> None:
    """Run all cases, or those named, and print a table; or be one run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(args.one)))
        return
    print("| run | held: plan | measured | plan / measured | with gaps: plan | measured | |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FTKIT_CACHE"] = f"{folder}/cache"
        prepare(Path(folder))
        for name in args.cases or CASES:
            held, gaps = planned(recipe_of(Path(folder), name))
            returned, usual = (
                measured(str(recipe_of(Path(folder), name)), more) for more in (RETURNED, {})
            )
            cells = [f"{held / MIB:.0f}", f"{returned / MIB:.0f}", f"{held / returned:.2f}"]
            cells += [f"{gaps / MIB:.0f}", f"{usual / MIB:.0f}", f"{gaps / usual:.2f}"]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def prepare(folder: Path) -> None:
    """Write rows, pairs, a tokenizer, and a model to put adapters on."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from ftkit.model.tokenizer import train_tokenizer

    draw = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(9000)]

    def text(least: int, most: int) -> str:
        return " ".join(draw.choices(words, k=draw.randint(least, most)))

    tokenizer = train_tokenizer([text(2000, 2000) for _ in range(60)], VOCABULARY)
    tokenizer.save_pretrained(folder / "tokenizer")
    rows = [{"prompt": text(5, 25), "truth": "1", "completion": text(60, 90)} for _ in range(200)]
    pairs = [
        {"prompt": r["prompt"], "chosen": r["completion"], "rejected": text(60, 90)} for r in rows
    ]
    for name, content in (("rows", rows), ("pairs", pairs)):
        lines = "".join(json.dumps(row) + "\n" for row in content)
        (folder / f"{name}.jsonl").write_text(lines)
    values = {key: value for key, value in INIT.items() if key != "architecture"}
    config = AutoConfig.for_model("qwen2", vocab_size=len(tokenizer), **values)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")


def recipe_of(folder: Path, name: str) -> Path:
    """Write the recipe of a case."""
    case = CASES[name]
    pairs = case.get("method", {}).get("name") in {"dpo", "reward"}
    tree: dict[str, Any] = {
        "run": tempfile.mkdtemp(dir=folder),
        "method": {"name": "sft"},
        "data": {"train": str(folder / ("pairs.jsonl" if pairs else "rows.jsonl"))},
        "model": {"path": str(folder / "base")},
        "train": {"prompts": 4, "steps": 2, "lr": 1e-4, "micro_tokens": 512, "threads": 1},
    }
    for key, values in case.items():
        tree[key] = {**tree.get(key, {}), **values}
    if tree["method"]["name"] == "trpo":
        del tree["train"]["lr"]
    path = Path(tree["run"]) / "recipe-to-run.yaml"
    tree["run"] += "/run"
    path.write_text(json.dumps(tree))  # JSON is YAML
    return path


def planned(path: Path) -> tuple[int, int]:
    """Return the bytes that a plan says beside the libraries: without gaps, and with them."""
    from ftkit.plan.estimate import estimate
    from ftkit.plan.machine import machine_of
    from ftkit.plan.models import Shelf
    from ftkit.recipe import load_recipe
    from ftkit.run import read_data

    recipe = load_recipe(str(path)).recipe
    data = read_data(recipe)
    now = estimate(recipe, data, machine_of(1, None), Shelf(data.tokenizer))
    apart = {"libraries", "allocator"}
    held = {
        phase: sum(part.during.get(phase, 0) for part in now.parts if part.name not in apart)
        for phase in now.phases
    }
    libraries = next(part for part in now.parts if part.name == "libraries")
    return max(held.values()), now.peak - libraries.during[now.phase]


def measured(path: str, environment: dict[str, str]) -> int:
    """Return by how many bytes a process grows that trains by a recipe."""
    few = {
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).resolve()), "--one", path],
            env={**os.environ, **few, **environment, "FTKIT_CACHE": cache},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"{path} failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return int(found["peak"] - found["before"])


def one(path: str) -> dict[str, int]:
    """Train by a recipe; return the bytes of this process before and at most."""
    import deepspeed  # noqa: F401 (so that what is imported as models are saved is there before)
    import peft  # noqa: F401

    from ftkit.recipe import load_recipe
    from ftkit.run import read_data
    from ftkit.tasks.train import train
    from ftkit.train.folder import peak_memory

    loaded = load_recipe(path)
    read_data(loaded.recipe)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    before = pages * resource.getpagesize()
    train(loaded, resume=False, dry_run=False)
    return {"before": before, "peak": peak_memory()["host"]}


if __name__ == "__main__":
    main()
