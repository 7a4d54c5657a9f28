"""What the benchmarks share: peers in turn, each in a process of its own; checks; the table.

All peers take the same steps.  They take them in turn: one process works, the others wait, so that
whatever else the machine does falls on all of them.  A process reports the CPU time (user + system)
of each step, its loss, the tokens learnt, at the end its peak resident memory, and leaves the
gradient of the first step on disk.  That all peers learnt the same tokens, with the same first
losses and the same gradient, is asserted before anything is printed.  The first ``--warmup`` steps
are not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")

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
"""34M parameters, of which the head's matrix is 12 %: in proportion like models in use."""
LR = 1e-4
OURS = "ftkit"
GRADIENT_TOLERANCE = 1e-4
"""By how much the first gradients may differ, relative to their 2-norm."""


@dataclass(frozen=True)
class Contest:
    """A comparison."""

    script: str
    """The file that is run for each peer."""
    peers: tuple[str, ...]
    unit: str
    """What is counted, as "ms a pair"."""
    scale: float
    """What seconds are multiplied by."""
    units: Callable[[argparse.Namespace], list[int]]
    """How many there are in each step."""
    run: Callable[[argparse.Namespace, Watch], None]
    """Take the steps of one peer, ``args.peer``."""
    tolerance: Sequence[float]
    """By how much the losses of the first steps may differ, in nats."""


class Watch:
    """What a peer tells of its steps, and where it waits for its turn."""

    def __init__(self, say: IO[str], keep: Path) -> None:
        self._say, self._keep = say, keep
        self._done: dict[str, Any] = {}
        self._started = 0.0
        self.before = 0.0
        """CPU seconds of what is done once before the steps: the reference's forward passes."""

    def turn(self) -> None:
        """Tell what was done since the last call, and wait; called before each step and at last."""
        self.tell({"seconds": time.process_time() - self._started, **self._done})
        self._done = {}
        sys.stdin.readline()
        self._started = time.process_time()

    def differentiated(self, loss: float, trained: int, model: nn.Module) -> None:
        """Note a step whose gradients are there, before they are clipped."""
        if not self._keep.exists():
            import torch

            torch.save({n: p.grad for n, p in model.named_parameters()}, self._keep)
        self._done |= {"loss": loss, "trained": trained}

    def note(self, **what: float) -> None:
        """Note something more of a step."""
        self._done |= what

    def tell(self, what: dict[str, Any]) -> None:
        """Write a line to who compares."""
        print(json.dumps(what), file=self._say, flush=True)


@dataclass
class Peer:
    """A process that takes steps when it is told to."""

    name: str
    process: subprocess.Popen[str]
    errors: Path
    gradient: Path
    steps: list[dict[str, Any]] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)

    def hear(self) -> dict[str, Any]:
        """Return what it says next."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} failed:\n{self.errors.read_text()[-3000:]}")
        said: dict[str, Any] = json.loads(line)
        return said

    def step(self) -> None:
        """Have it take a step."""
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)
        self.steps.append(self.hear())

    def finish(self) -> None:
        """Have it say what it took in all."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.end = self.hear()
        self.process.wait()


def parser(doc: str, contest: Contest) -> argparse.ArgumentParser:
    """Return a parser of what all benchmarks can be told."""
    out = argparse.ArgumentParser(description=doc.splitlines()[0])
    out.add_argument("--peer", choices=contest.peers, help=argparse.SUPPRESS)
    out.add_argument("--keep", type=Path, help=argparse.SUPPRESS)
    out.add_argument("--steps", type=int, default=3)
    out.add_argument("--warmup", type=int, default=1, help="first steps that are not measured")
    out.add_argument("--matmul", choices=("highest", "high", "medium"), default="highest")
    return out


def main(contest: Contest, args: argparse.Namespace) -> None:
    """Compare all peers, or be one of them."""
    if args.peer:
        be(contest, args)
        return
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        peers = take_turns(contest, args, Path(folder), stack)
        ours = next(peer for peer in peers if peer.name == OURS)
        gaps = {peer.name: gap(peer.gradient, ours.gradient) for peer in peers}
    if args.matmul == "highest":
        check(contest, peers, ours, gaps)
    table(contest, peers, gaps, args)


def take_turns(
    contest: Contest, args: argparse.Namespace, folder: Path, stack: ExitStack
) -> list[Peer]:
    """Have all peers take all steps, one after the other in each."""
    if args.steps <= args.warmup:
        raise SystemExit(f"--steps {args.steps}: with --warmup {args.warmup} none is measured")
    peers = [start(contest, name, folder, stack) for name in contest.peers]
    for step in range(args.steps):
        for peer in peers:
            peer.step()
            print(f"step {step + 1} {peer.name}: {peer.steps[-1]}", file=sys.stderr)
    for peer in peers:
        peer.finish()
    return peers


def start(contest: Contest, name: str, folder: Path, stack: ExitStack) -> Peer:
    """Start a peer on one thread and wait until it is ready for its first step."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    home, errors, gradient = folder / name, folder / f"{name}.txt", folder / f"{name}.pt"
    home.mkdir()
    script = [sys.executable, str(Path(contest.script).resolve()), *sys.argv[1:]]
    process = subprocess.Popen(
        [*script, "--peer", name, "--keep", str(gradient)],
        env={**os.environ, **threads, "HF_HUB_OFFLINE": "1"},
        cwd=home,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stack.enter_context(errors.open("w")),
        text=True,
    )
    stack.callback(process.kill)
    peer = Peer(name, process, errors, gradient)
    peer.hear()
    return peer


def be(contest: Contest, args: argparse.Namespace) -> None:
    """Be one peer: lines of JSON to what was standard output, all else to standard error."""
    import torch

    with os.fdopen(os.dup(1), "w") as say:
        os.dup2(2, 1)
        torch.set_num_threads(1)
        torch.set_float32_matmul_precision(args.matmul)
        watch = Watch(say, args.keep)
        contest.run(args, watch)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        watch.tell({"before": watch.before, "peak_mb": peak})


def gap(one: Path, other: Path) -> float:
    """Return the 2-norm of the difference of two gradients, relative to the second's."""
    import torch

    a, b = torch.load(one), torch.load(other)
    assert a.keys() == b.keys(), a.keys() ^ b.keys()
    apart = sum((a[name].double() - b[name].double()).square().sum().item() for name in b)
    norm = sum(b[name].double().square().sum().item() for name in b)
    return float((apart / norm) ** 0.5)


def check(contest: Contest, peers: list[Peer], ours: Peer, gaps: dict[str, float]) -> None:
    """Assert that all peers learnt the same tokens, with the same losses and gradient."""
    for peer in peers:
        assert gaps[peer.name] < GRADIENT_TOLERANCE, (peer.name, "gradient", gaps[peer.name])
        for one, other in zip(peer.steps, ours.steps, strict=True):
            assert one["trained"] == other["trained"], (peer.name, one["trained"], other["trained"])
        for step, tolerance in enumerate(contest.tolerance):
            apart = abs(peer.steps[step]["loss"] - ours.steps[step]["loss"])
            assert apart < tolerance, (peer.name, f"loss of step {step + 1}", apart)


def table(
    contest: Contest, peers: list[Peer], gaps: dict[str, float], args: argparse.Namespace
) -> None:
    """Print what a unit costs, and the median of the ratios to ftkit step by step."""
    ours = next(peer for peer in peers if peer.name == OURS)
    units, warmup = contest.units(args), args.warmup
    once = any(peer.end["before"] for peer in peers)
    shown = range(len(contest.tolerance))
    head = [f"CPU {contest.unit}", "ratio to ftkit (of the steps)", "peak MB", "ftkit's share"]
    head += ["CPU s before the steps"] * once
    head += [f"loss, step {i + 1}" for i in shown] + ["gradient, apart by"]
    print(f"| peer | {' | '.join(head)} |\n|{'---|' * (len(head) + 1)}")
    own = [step["seconds"] for step in ours.steps[warmup:]]
    for peer in peers:
        seconds = [step["seconds"] for step in peer.steps[warmup:]]
        ratios = [a / b for a, b in zip(seconds, own, strict=True)]
        memory = peer.end["peak_mb"]
        cells = [
            f"{contest.scale * sum(seconds) / sum(units[warmup:]):.0f}",
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            f"{memory:.0f}",
            f"{ours.end['peak_mb'] / memory:.2f}",
        ]
        cells += [f"{peer.end['before']:.1f}"] * once
        cells += [f"{peer.steps[i]['loss']:.6f}" for i in shown] + [f"{gaps[peer.name]:.0e}"]
        print(f"| {peer.name} | {' | '.join(cells)} |")


def new_model() -> Any:
    """Return the model that all peers start from."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen2", **BIG))


def in_steps(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the rows of each step."""
    return (rows[i : i + size] for i in range(0, len(rows), size))
