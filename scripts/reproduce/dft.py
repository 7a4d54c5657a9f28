"""SFT against DFT and DFT2 on two-digit sums: same start, same steps, same order of the rows.

    python scripts/reproduce/dft.py             # the table and the figure of docs/reproduce-dft.md
    python scripts/reproduce/dft.py --cost      # what a step costs, and an answer of the pool
    python scripts/reproduce/dft.py --search    # what was tried before, on other seeds

Each seed has its own start: pretrained, then fine-tuned until four of ten held-out sums are right.
From there every method takes the same number of steps.  All of it are ftkit's commands on the
recipes in recipes/tiny, told as they run; stopped at any moment, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.core.errors import UserError
from scripts.reproduce.commands import Commands, kept
from scripts.reproduce.page import insert
from scripts.reproduce.plan import AGAIN, MEASURES, METHODS, SEARCH, SETTINGS, Method, Setting
from scripts.reproduce.show import costs, draw, tables, tried

REPOSITORY = Path(__file__).parents[2]
SEEDS = range(5)
"""Of the runs that are reported."""
SEARCH_SEEDS = range(100, 102)
"""Of those that constants were chosen by."""

Found = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How much is done: as reported, or as little as tests need."""

    pretrain: int = 200
    start: int = 2000
    """At most; it ends when four of ten are right, and when that is differs."""
    steps: int = 150
    prompts: int = 64
    held_out: int | None = None
    """Held-out sums; None = all."""
    rows: int | None = None
    """At most so many sums to learn from."""
    timed: tuple[int, int] = (10, 50)
    """Steps of the two runs by whose difference a step is timed."""


QUICK = Sizes(pretrain=2, start=2, steps=2, prompts=8, held_out=8, rows=16, timed=(1, 2))


@dataclass(frozen=True)
class Bench:
    """The runs of one seed, in a folder of their own."""

    commands: Commands
    out: Path
    data: Path
    """What ``make tiny`` wrote."""
    seed: int
    sizes: Sizes

    @property
    def folder(self) -> Path:
        """Where this seed's runs are."""
        return self.out / f"seed-{self.seed}"

    def start(self) -> Found:
        """Make the model that all methods start from; return what it can do."""

        def find() -> Found:
            base, start = self.folder / "pretrain", self.folder / "start"
            self._train("pretrain", base, f"train.steps={self.sizes.pretrain}")
            until = [f"model.path={base}/model", "train.until={eval.exact_match: 0.4}"]
            steps = [f"train.steps={self.sizes.start}", "train.schedule=constant"]
            measured = ["eval.every=20", "eval.limit=300", "sample.temperature=0"]
            self._train("sft", start, *until, *steps, *measured)
            self._negatives("--held-out", str(self._held_out), temperature=1.0, answers=4)
            return self._measure(start)

        return kept(self.folder / "start.json", find)

    def run(self, setting: Setting, method: Method) -> Found:
        """Train by a method from the start model; return what it can do then."""
        told = method.told.replace("τ", "tau").replace("γ", "gamma").replace("T ", "temperature ")
        run = self.folder / re.sub("[^a-z0-9.]+", "-", f"{setting.name} {told}")

        def find() -> Found:
            self._train(method.command, run, *self._constants(setting, method, self.sizes.steps))
            return self._measure(run)

        return kept(run / "found.json", find)

    def cost(self, setting: Setting) -> dict[str, float]:
        """Return the CPU seconds of a step of each method, and of an answer of the pool."""
        self.start()
        found = {}
        with tempfile.TemporaryDirectory(dir=self.folder) as aside:
            method = next(iter(METHODS[setting.name].values()))  # imports are no step's cost
            self._train(method.command, Path(aside, "warm"), *self._constants(setting, method, 1))
            for name, method in METHODS[setting.name].items():
                few, many = (
                    self._train(
                        method.command,
                        Path(aside, f"{name}-{steps}"),
                        *self._constants(setting, method, steps),
                    )
                    for steps in self.sizes.timed
                )
                found[name] = (many - few) / (self.sizes.timed[1] - self.sizes.timed[0])
            few, many = (
                self._negatives(
                    f"data.pool={aside}/pool-{answers}",
                    "method.negatives=1",
                    *self._rows(setting.rows),
                    temperature=1.0,
                    answers=answers,
                )
                for answers in (1, 5)
            )
        rows = min(limit for limit in (setting.rows, self.sizes.rows) if limit is not None)
        return found | {"answer": (many - few) / (4 * rows)}

    @property
    def _held_out(self) -> Path:
        """The start model's answers to held-out sums, which all models rank."""
        return self.folder / "held-out"

    def _constants(self, setting: Setting, method: Method, steps: int) -> list[str]:
        """Return how a method is run from the start model, with its pool made."""
        said = [
            f"model.path={self.folder}/start/model",
            f"train.steps={steps}",
            "train.schedule=cosine",
            "train.warmup=0.1",
            "eval.every=null",
            "eval.limit=20",
            "checkpoint.every=null",
            *self._rows(setting.rows),
            *method.overrides,
        ]
        if method.temperature is None:
            return [*said, "train.until={}", "sample.temperature=0"]
        pool = self.folder / f"pool-{setting.name}-{method.temperature:g}"
        if not (pool / "pool.json").is_file():
            self._negatives(
                f"data.pool={pool}",
                *self._rows(setting.rows),
                temperature=method.temperature,
                answers=setting.answers,
            )
        return [*said, f"data.pool={pool}", f"sample.answers={setting.answers}"]

    def _train(self, method: str, run: Path, *constants: str) -> float:
        """Run a training command; return its CPU seconds."""
        said = [f"run={run}", f"seed={self.seed}", *self._common(method), *constants, "--resume"]
        return self.commands(method, recipe_of(method), *said)[1]

    def _negatives(self, *constants: str, temperature: float, answers: int) -> float:
        """Have the start model answer prompts; return the CPU seconds."""
        start = f"model.path={self.folder}/start/model"
        said = [start, f"seed={self.seed}", f"sample.temperature={temperature:g}"]
        said += [f"sample.answers={answers}", *self._common("dft")]
        return self.commands("gen-negatives", recipe_of("dft"), *said, *constants)[1]

    def _measure(self, run: Path) -> Found:
        """Ask a run's model all held-out sums, and have it rank the start model's answers."""
        said = [f"model.path={run}/model", "sample.temperature=1", *self._common("sft")]
        said.append(f"data.eval={self._held_out}")
        found = json.loads(self.commands("eval", recipe_of("sft"), *said, "--json")[0])
        return {name: found[name]["value"] for name in MEASURES}

    def _common(self, method: str) -> list[str]:
        """Return what all commands are told."""
        files = {"train": "train.jsonl", "eval": "test.jsonl"}
        if method == "pretrain":
            files = {"train": "pretrain.jsonl"}
        said = [f"data.{key}={self.data}/data/{file}" for key, file in files.items()]
        if self.sizes.held_out is not None and method != "pretrain":
            said[1] = _some("eval", self.data / "data/test.jsonl", self.sizes.held_out)
        tokenizer = [f"model.tokenizer={self.data}/tokenizer"] if method == "pretrain" else []
        return [*said, *tokenizer, f"train.prompts={self.sizes.prompts}", "train.threads=1"]

    def _rows(self, limit: int | None) -> list[str]:
        """Return which sums are learnt from after the start."""
        limits = [each for each in (limit, self.sizes.rows) if each is not None]
        return [_some("train", self.data / "data/train.jsonl", min(limits))] if limits else []


def recipe_of(method: str) -> str:
    """Return the file of a method's recipe."""
    return str(REPOSITORY / "recipes" / "tiny" / f"{method}.yaml")


def _some(key: str, file: Path, limit: int) -> str:
    """Return the override that takes so many rows of a file."""
    source = json.dumps({"path": str(file), "limit": limit})
    return f"data.{key}={source}" if key == "eval" else f"data.{key}=[{source}]"


def report(bench_of: Callable[[int], Bench], seeds: Sequence[int]) -> dict[str, list[Found]]:
    """Run everything that is reported; return for each setting what each seed found."""
    found: dict[str, list[Found]] = {setting.name: [] for setting in SETTINGS}
    for seed in seeds:
        bench = bench_of(seed)
        start = bench.start()
        for setting in SETTINGS:
            methods = METHODS[setting.name]
            one = {name: bench.run(setting, method) for name, method in methods.items()}
            found[setting.name].append({"start": start, **one})
    return found


def search(
    bench_of: Callable[[int], Bench], seeds: Sequence[int]
) -> dict[str, dict[str, list[Found]]]:
    """Run what was tried; return for each setting and candidate what each seed found."""
    found: dict[str, dict[str, list[Found]]] = {}
    for seed in seeds:
        bench = bench_of(seed)
        bench.start()
        for setting in SETTINGS:
            tried = found.setdefault(setting.title, {})
            for method in (SEARCH if seed == seeds[0] else AGAIN)[setting.name]:
                tried.setdefault(method.told, []).append(bench.run(setting, method))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it all, and write the page's table and figure; return the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--search", action="store_true", help="what was tried, on other seeds")
    parser.add_argument("--cost", action="store_true", help="what steps and answers cost")
    parser.add_argument("--seeds", type=int, help="so many seeds (5; with --search 2)")
    parser.add_argument("--data", type=Path, default=Path("runs/tiny"), help="`make tiny`")
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce/dft"))
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="reproduce-dft.md")
    parser.add_argument("--quick", action="store_true", help="next to nothing of it, as a test")
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else Sizes()
    commands = Commands(options.out / "log.txt")

    def bench_of(seed: int) -> Bench:
        return Bench(commands, options.out, options.data, seed, sizes)

    page = options.docs / "reproduce-dft.md"
    seeds = (SEARCH_SEEDS if options.search else SEEDS)[: options.seeds]
    try:
        if options.search:
            insert(page, "search", told := tried(search(bench_of, seeds)))
        elif options.cost:
            insert(page, "cost", told := costs(bench_of(SEEDS[0]).cost(SETTINGS[-1])))
        else:
            found = report(bench_of, seeds)
            insert(page, "sums", told := tables(found))
            (options.docs / "reproduce-dft.svg").write_text(draw(found), encoding="utf-8")
    except UserError as error:
        print(error, file=sys.stderr)
        return error.status
    print(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
