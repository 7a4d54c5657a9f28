"""Every method that learns from a verifier, on two-digit sums: same starts, same budget.

    python scripts/reproduce/rlvr.py            # table and figure of docs/reproduce-rlvr.md
    python scripts/reproduce/rlvr.py --search   # the learning rates that were tried, another seed

Each seed has the start that ``dft.py`` makes: pretrained, then fine-tuned until four of ten
held-out sums are right.  From there every method takes 100 steps of 32 prompts with 8 answers each.
All of it are ftkit's commands on recipes/tiny, told as they run; stopped at any moment, the same
command goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ftkit.core.errors import UserError
from scripts.reproduce import dft
from scripts.reproduce.commands import Commands, kept
from scripts.reproduce.page import insert
from scripts.reproduce.show_rlvr import draw, tables, tried

SEEDS = range(5)
"""Of the runs that are reported."""
SEARCH_SEED = 100
"""Of those that learning rates were chosen by."""


@dataclass(frozen=True)
class Method:
    """A method with its constants."""

    command: str
    constants: tuple[str, ...] = ()
    lr: float | None = 3e-4
    """The one that was chosen; None = it has none."""

    def said(self) -> list[str]:
        """Return what its command is told."""
        return [*self.constants, *([] if self.lr is None else [f"train.lr={self.lr:g}"])]


TRUST = ("method.delta=0.003", "method.beta=100")
"""The trust region of DisCO: the published one is below the KL of a single step here."""
TWO = ("train.updates=2",)

METHODS: Mapping[str, Method] = {
    "grpo": Method("grpo"),
    "dr_grpo": Method("grpo", ("method.preset=dr_grpo",)),
    "dapo": Method("grpo", ("method.preset=dapo",)),
    "gpg": Method("grpo", ("method.preset=gpg",)),
    "gspo": Method("grpo", ("method.preset=gspo", *TWO)),
    "cispo": Method("grpo", ("method.preset=cispo", *TWO)),
    "grpo_er": Method("grpo", ("method.preset=grpo_er",)),
    "disco log-L": Method("disco", (*TRUST, *TWO)),
    "disco L-ratio": Method(
        "disco", (*TRUST, *TWO, "method.score=likelihood_ratio", "method.tau=1.0")
    ),
    "ppo": Method("ppo"),
    "trpo": Method("trpo", ("method.delta=0.01",), lr=None),
}
"""What is compared."""
RATES = (1e-4, 3e-4, 1e-3)
"""Tried for each method that has a learning rate."""
DELTAS = (3e-3, 1e-2, 3e-2)
"""Tried for trpo, in their place."""


@dataclass(frozen=True)
class Sizes:
    """How much is done: as reported, or as little as tests need."""

    steps: int = 100
    prompts: int = 32
    answers: int = 8


QUICK = Sizes(steps=2, prompts=2, answers=2)


@dataclass(frozen=True)
class Bench:
    """The runs of one seed, in a folder of their own."""

    base: dft.Bench
    """Makes the start."""
    out: Path
    sizes: Sizes

    def run(self, name: str, method: Method) -> dict[str, Any]:
        """Train by a method from the start; return what it can do then, and how it came there."""
        slug = f"{name} {'' if method.lr is None else f'{method.lr:g}'}".strip().replace(" ", "-")
        run = self.out / f"seed-{self.base.seed}" / slug

        def find() -> dict[str, Any]:
            shutil.rmtree(run, ignore_errors=True)
            _, seconds = self._commands(method.command, *self._said(method, run))
            curve = [json.loads(line) for line in (run / "metrics.jsonl").open()]
            return {**self.measure(run), "seconds": seconds, "curve": _thin(curve)}

        return kept(run.with_name(f"{run.name}.json"), find)

    def start(self) -> dict[str, Any]:
        """Make the start, if need be; return what it can do."""
        self.base.start()
        file = self.out / f"seed-{self.base.seed}" / "start.json"
        return kept(file, lambda: self.measure(self.base.folder / "start"))

    def measure(self, run: Path) -> dict[str, Any]:
        """Ask a run's model all held-out sums, greedily and 4 times each by draws."""
        said = [f"model.path={run}/model", "sample.temperature=1", "sample.answers=4"]
        said += [f"data.{key}={self.base.data}/data/{file}.jsonl" for key, file in FILES.items()]
        recipe = dft.recipe_of("sft")
        found = json.loads(self._commands("eval", recipe, *said, "train.threads=1", "--json")[0])
        return {key: found[key]["value"] for key in ("exact_match", "exact_match_sampled")}

    @property
    def _commands(self) -> Commands:
        return self.base.commands

    def _said(self, method: Method, run: Path) -> list[str]:
        said = [dft.recipe_of(method.command), f"run={run}", f"seed={self.base.seed}"]
        said += [f"model.path={self.base.folder}/start/model", *method.said()]
        said += [f"data.{key}={self.base.data}/data/{file}.jsonl" for key, file in FILES.items()]
        said += [f"train.steps={self.sizes.steps}", f"train.prompts={self.sizes.prompts}"]
        said += [f"sample.answers={self.sizes.answers}", "train.threads=1", "eval.every=null"]
        return [*said, "eval.limit=20", "checkpoint.every=null", "sample.logged=0"]


FILES = {"train": "train", "eval": "test"}
CURVES = ("reward", "entropy", "kl")


def _thin(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return curves of a run, each the mean of five steps."""
    cut = [lines[i : i + 5] for i in range(0, len(lines), 5)]
    known = [key for key in CURVES if key in lines[0]]
    curves = {key: [sum(x[key] for x in part) / len(part) for part in cut] for key in known}
    return {"step": [part[-1]["step"] for part in cut], **curves}


def candidates(method: Method) -> list[Method]:
    """Return what is tried of a method."""
    if method.lr is not None:
        return [replace(method, lr=lr) for lr in RATES]
    return [replace(method, constants=(f"method.delta={d:g}",)) for d in DELTAS]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it all, and write the page's table and figure; return the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--search", action="store_true", help="learning rates, on another seed")
    parser.add_argument("--seeds", type=int, help="so many seeds (5)")
    parser.add_argument("--only", nargs="*", help="only these methods; no page is written")
    parser.add_argument("--data", type=Path, default=Path("runs/tiny"), help="`make tiny`")
    parser.add_argument("--starts", type=Path, default=Path("runs/reproduce/dft"))
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce/rlvr"))
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="reproduce-rlvr.md")
    parser.add_argument("--quick", action="store_true", help="next to nothing of it, as a test")
    options = parser.parse_args(arguments)
    commands = Commands(options.out / "log.txt")
    small = dft.QUICK if options.quick else dft.Sizes()

    def bench_of(seed: int) -> Bench:
        base = dft.Bench(commands, options.starts, options.data, seed, small)
        return Bench(base, options.out, QUICK if options.quick else Sizes())

    chosen = {name: each for name, each in METHODS.items() if name in (options.only or METHODS)}
    page = options.docs / "reproduce-rlvr.md"
    try:
        told = _search(bench_of(SEARCH_SEED), chosen) if options.search else ""
        found = {} if options.search else _report(map(bench_of, SEEDS[: options.seeds]), chosen)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.status
    if not options.search:
        told = tables(found)
        if not options.only:
            (options.docs / "reproduce-rlvr.svg").write_text(draw(found), encoding="utf-8")
    if not options.only:
        insert(page, "search" if options.search else "methods", told)
    print(told)
    return 0


def _report(benches: Any, methods: Mapping[str, Method]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ("start", *methods)}
    for bench in benches:
        found["start"].append(bench.start())
        for name, method in methods.items():
            found[name].append(bench.run(name, method))
    return found


def _search(bench: Bench, methods: Mapping[str, Method]) -> str:
    bench.start()
    return tried(
        {
            name: {
                " ".join(each.said()): bench.run(_named(name, each), each) for each in candidates(m)
            }
            for name, m in methods.items()
        }
    )


def _named(name: str, method: Method) -> str:
    return name if method.lr is not None else f"{name} {method.constants[0]}"


if __name__ == "__main__":
    sys.exit(main())
