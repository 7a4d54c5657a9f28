"""SFT through TRL's SFTTrainer and through ftkit: CPU seconds a real token and peak memory.

Each peer runs in a process of its own, in turn, ``--rounds`` times, on the same weights, rows,
batches, optimizer and thread count.  A process reports the CPU time (user + system) of its steps
after ``--warmup`` ones, the real tokens of those, its peak resident memory, and the loss of each
step.  That tokens and first losses agree is asserted before anything is printed.

    python scripts/bench_sft.py                     # the 34M model, all tokens trained
    python scripts/bench_sft.py --completions       # loss on completions only
    python scripts/bench_sft.py --matmul medium     # float32 products near bfloat16, for all peers
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PEERS = ("trl-default", "trl-padding-free", "ftkit")
BIG = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 9,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "vocab_size": 8192,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
LR = 1e-4
TOLERANCE = 1e-5
"""By how much the losses of the first step may differ, in nats."""


def main() -> None:
    """Run one peer (``--peer``) or all of them in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", choices=PEERS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--rows", type=int, default=8, help="rows in a step")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--completions", action="store_true", help="train on completions only")
    parser.add_argument("--matmul", choices=("highest", "high", "medium"), default="highest")
    args = parser.parse_args()
    if args.peer:
        print(json.dumps(measure(args)))
        return
    found: dict[str, list[dict[str, Any]]] = {peer: [] for peer in PEERS}
    for turn in range(args.rounds):
        for peer in PEERS:
            found[peer].append(in_own_process(peer))
            print(
                f"round {turn + 1} {peer}: {found[peer][-1]['us_a_token']:.0f} us", file=sys.stderr
            )
    check(found)
    table(found, args)


def in_own_process(peer: str) -> dict[str, Any]:
    """Run this script for one peer, on one thread, and return what it says."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], "--peer", peer],
            env={**os.environ, **threads, "HF_HUB_OFFLINE": "1"},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"{peer} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def check(found: dict[str, list[dict[str, Any]]]) -> None:
    """Assert that all peers saw the same tokens and had the same losses."""
    first = found["ftkit"][0]
    for peer, results in found.items():
        for result in results:
            assert result["tokens"] == first["tokens"], (peer, result["tokens"], first["tokens"])
            gap = abs(result["losses"][0] - first["losses"][0])
            assert gap < TOLERANCE or "medium" in sys.argv, (peer, "loss of step 1", gap)


def table(found: dict[str, list[dict[str, Any]]], args: argparse.Namespace) -> None:
    """Print medians over rounds, and ratios to ftkit round by round."""
    print(f"rows a step {args.rows}, real tokens measured {found['ftkit'][0]['tokens']}")
    print(
        "| peer | us CPU a real token | ratio to ftkit | peak MB | ftkit's share | loss, step 1 |"
    )
    print("|---|---|---|---|---|---|")
    ours = found["ftkit"]
    for peer, results in found.items():
        speed = statistics.median(r["us_a_token"] for r in results)
        ratio = statistics.median(
            r["us_a_token"] / o["us_a_token"] for r, o in zip(results, ours, strict=True)
        )
        memory = statistics.median(r["peak_mb"] for r in results)
        share = statistics.median(o["peak_mb"] for o in ours) / memory
        loss = results[0]["losses"][0]
        print(f"| {peer} | {speed:.0f} | {ratio:.2f} | {memory:.0f} | {share:.2f} | {loss:.7f} |")


def make_rows(args: argparse.Namespace) -> list[tuple[list[int], list[int]]]:
    """Return (prompt, completion) for all steps: lengths as ragged as real ones, log-normal."""
    draw = random.Random(0)
    rows = []
    for _ in range(args.rows * args.steps):
        total = min(args.max_length, max(24, round(draw.lognormvariate(5.0, 0.6))))
        prompt = max(1, total // 3)
        ids = [draw.randrange(10, BIG["vocab_size"]) for _ in range(total)]
        rows.append((ids[:prompt], ids[prompt:]))
    return rows


def new_model() -> Any:
    """Return the model all peers start from."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen2", **BIG))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run one peer's steps and return what they took."""
    import torch

    torch.set_num_threads(1)
    torch.set_float32_matmul_precision(args.matmul)
    rows = make_rows(args)
    losses, times = (ftkit if args.peer == "ftkit" else trl)(args, rows)
    measured = rows[args.rows * args.warmup :]
    tokens = sum(len(prompt) + len(completion) for prompt, completion in measured)
    spent = times[-1] - times[args.warmup - 1]
    return {
        "peer": args.peer,
        "losses": losses,
        "tokens": tokens,
        "us_a_token": 1e6 * spent / tokens,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def ftkit(
    args: argparse.Namespace, rows: list[tuple[list[int], list[int]]]
) -> tuple[list[float], list[float]]:
    """Return ftkit's losses and the CPU time at the end of each step."""
    from ftkit.core.batch import collate
    from ftkit.core.group import Answer, Group
    from ftkit.model import attention
    from ftkit.model.policy import Policy
    from ftkit.objectives import SFT
    from ftkit.parallel.world import OneProcess
    from ftkit.train.config import TrainConfig
    from ftkit.train.learner import Learner
    from ftkit.train.optimizer import Optimizer

    attention.register()
    model = new_model().train()
    model.set_attn_implementation(attention.NAME)
    policy = Policy(model, None, micro_tokens=16384)
    learner = Learner(policy, SFT(name="sft"), OneProcess())
    optimizer = Optimizer(model, TrainConfig(lr=LR))
    losses, times = [], []
    for batch_rows in batches(rows, args.rows):
        groups = [
            Group("", tuple(p), (Answer(tuple(c)),))
            if args.completions
            else Group("", (p[0],), (Answer((*p[1:], *c)),))
            for p, c in batch_rows
        ]
        optimizer.zero_grad()
        outcome = learner.differentiate(collate(groups))
        optimizer.clip()
        optimizer.step(LR)
        losses.append(outcome.loss)
        times.append(time.process_time())
    return losses, times


def batches(rows: list[Any], size: int) -> Iterator[list[Any]]:
    """Yield the rows of each step."""
    return (rows[i : i + size] for i in range(0, len(rows), size))


def trl(
    args: argparse.Namespace, rows: list[tuple[list[int], list[int]]]
) -> tuple[list[float], list[float]]:
    """Return TRL's losses and the CPU time at the end of each step."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from torch.utils.data import SequentialSampler
    from transformers import PreTrainedTokenizerFast
    from trl import SFTTrainer

    losses: list[float] = []
    times: list[float] = []

    class Watched(SFTTrainer):  # type: ignore[misc]
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            if losses:  # the step before has been taken whole by now
                times.append(time.process_time())
            loss = super().training_step(*args, **kwargs)
            losses.append(float(loss))
            return loss

        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(dataset if dataset is not None else self.train_dataset)

    columns: dict[str, Any] = {"input_ids": [p + c for p, c in rows]}
    if args.completions:
        columns["completion_mask"] = [[0] * len(p) + [1] * len(c) for p, c in rows]
    words = {f"<{i}>": i for i in range(BIG["vocab_size"])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<0>")),
        eos_token="<1>",
        pad_token="<2>",
    )
    trainer = Watched(
        model=new_model(),
        args=trl_config(args),
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer,
    )
    trainer.train()
    times.append(time.process_time())
    return losses, times


def trl_config(args: argparse.Namespace) -> Any:
    """Return TRL's settings: the same optimizer, no recomputation, no 16-bit, padded or not."""
    from trl import SFTConfig

    return SFTConfig(
        output_dir="out",
        per_device_train_batch_size=args.rows,
        num_train_epochs=1,
        learning_rate=LR,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_length=None,  # no row is longer; padding_free asks for it
        padding_free=args.peer == "trl-padding-free",
        completion_only_loss=args.completions,
        disable_tqdm=True,
        dataloader_num_workers=0,
    )


if __name__ == "__main__":
    main()
