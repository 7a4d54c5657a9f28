"""Training on one and on two processes of one thread each: tokens a second, and where a step goes.

The same model, rows, steps and global batch for all, so the same losses, which is asserted.  A
step's seconds outside of the model are all but forward and backward passes: what ranks send each
other and wait for, the update, reading rows, metrics.

    python scripts/bench_scale.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ftkit.core.batch import collate
from ftkit.core.group import Answer, Group
from ftkit.launch.local import Node, Ranks, free_port
from ftkit.objectives import SFT
from ftkit.parallel.config import ParallelConfig, Stage
from ftkit.parallel.processes import joined, leave
from ftkit.parallel.world import World
from ftkit.parallel.zero import Zero
from ftkit.parallel.zero_config import stage_of, zero_config
from ftkit.train.config import TrainConfig
from ftkit.train.learner import Learner
from ftkit.train.optimizer import Optimizer, Update, build_optimizer
from scripts import bench_ftkit
from scripts.bench import LR
from scripts.bench_sft import make_rows

CASES: tuple[tuple[int, Stage], ...] = ((1, 0), (2, 0), (2, 1), (2, 2), (2, 3))
"""(processes, stage of ZeRO); one process needs no engine."""
COLLECTIVES = (
    "all_reduce",
    "all_gather",
    "all_gather_object",
    "all_gather_into_tensor",
    "all_gather_single",
    "reduce_scatter_tensor",
    "reduce_scatter_single",
    "reduce_scatter",
    "reduce",
    "broadcast",
    "barrier",
)
TOLERANCE = 1e-4
"""By how much losses may differ from those of one process, in nats."""


class Clock:
    """Seconds spent in collectives, by this process."""

    def __init__(self) -> None:
        self.waited = 0.0
        for name in COLLECTIVES:
            if hasattr(dist, name):
                setattr(dist, name, self._timed(getattr(dist, name)))

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self._waiting():
                done = call(*args, **kwargs)
            return _Work(done, self._timed(done.wait)) if hasattr(done, "wait") else done

        return timed

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.waited += time.perf_counter() - start


class _Work:
    """What a collective that goes on in the background is waited for by."""

    def __init__(self, work: Any, wait: Callable[..., Any]) -> None:
        self._work, self.wait = work, wait

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)


def work(args: argparse.Namespace) -> None:
    """Take the steps as one rank, and write what they took."""
    torch.set_num_threads(1)
    with joined(600.0) as world:
        clock = Clock()
        policy = bench_ftkit.new_policy(args.micro_tokens)
        learner = Learner(policy, SFT(name="sft"), world)
        update = new_update(policy, args.zero, world)
        rows = make_rows(args)
        told = []
        for step in range(args.steps):
            start = time.perf_counter()
            some = rows[step * args.rows : (step + 1) * args.rows]
            mine = [some[i] for i in world.dealt([len(p) + len(c) for p, c in some])]
            batch = collate([Group("", tuple(p[:1]), (Answer((*p[1:], *c)),)) for p, c in mine])
            update.zero_grad()
            before, began = clock.waited, time.perf_counter()
            outcome = learner.differentiate(batch)
            model = time.perf_counter() - began - (clock.waited - before)
            update.step(LR)
            seconds = time.perf_counter() - start
            told.append({"loss": outcome.loss, "tokens": outcome.tokens, "seconds": seconds})
            told[-1]["outside"] = seconds - model
        if world.leads:
            Path(args.out).write_text(json.dumps(told))
    if world.size > 1:
        leave(0)


def new_update(policy: Any, zero: Stage, world: World) -> Update:
    """Return what updates the weights: an engine from stage 1 on."""
    config, parallel = TrainConfig(lr=LR), ParallelConfig(zero=zero)
    stage = stage_of(parallel, world.size)
    if stage == 0:
        return Optimizer(policy.model, config, world)
    settings = zero_config(parallel, stage, bfloat16=False, clip=1.0, gpu=False)
    weights = dict(policy.model.named_parameters())
    engine = Zero(
        policy.modules(), weights, lambda held: build_optimizer(held, config), settings, world
    )
    policy.placement = engine
    return engine


def measured(args: argparse.Namespace, size: int, zero: Stage) -> list[dict[str, float]]:
    """Return the steps of some processes at some stage."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "steps.json")
        given = [f"--{k.replace('_', '-')}={v}" for k, v in vars(args).items() if k in GIVEN]
        command = [sys.executable, "-m", "scripts.bench_scale", "--work", f"--out={out}"]
        command += [f"--zero={zero}", *given]
        if size == 1:
            subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        elif Ranks(Node(size, master=("127.0.0.1", free_port())), command).run():
            raise SystemExit(f"{size} processes at stage {zero} failed")
        found: list[dict[str, float]] = json.loads(Path(out).read_text())
    return found


GIVEN = ("rows", "steps", "max_length", "micro_tokens")


def main(args: argparse.Namespace) -> None:
    """Measure every case, in turn; print a table."""
    print(
        f"34M parameters, {args.rows} rows a step, {args.steps - 1} of {args.steps} steps counted"
    )
    print("| processes | zero | tokens a second | of twice one's | outside the model | s a step |")
    print("|---|---|---|---|---|---|")
    first: list[dict[str, float]] = []
    for size, zero in CASES:
        steps = measured(args, size, zero)
        first = first or steps
        for one, other in zip(first, steps, strict=True):
            assert abs(one["loss"] - other["loss"]) < TOLERANCE
            assert one["tokens"] == other["tokens"]
        seconds = sum(step["seconds"] for step in steps[1:])
        speed = sum(step["tokens"] for step in steps[1:]) / seconds
        alone = sum(s["tokens"] for s in first[1:]) / sum(s["seconds"] for s in first[1:])
        share = sum(step["outside"] for step in steps[1:]) / seconds
        told = f"| {size} | {zero} | {speed:,.0f} | {speed / alone / size:.2f} | {share:.1%} "
        print(f"{told}| {seconds / (args.steps - 1):.2f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rows", type=int, default=64, help="rows in a step, over all processes")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--micro-tokens", type=int, default=4096)
    parser.add_argument("--zero", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    (work if parsed.work else main)(parsed)
