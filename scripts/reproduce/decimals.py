"""9.11 against 9.9: what becomes of the wrong number under SFT, DFT and DFT2 from the same start.

    python scripts/reproduce/decimals.py        # the table and the figure of docs/reproduce-dft.md

A small model is pretrained on texts that mostly take the decimals for whole numbers, so that it
says 9.11 is bigger than 9.9.  Then each method learns the right answers to 600 such questions, in
the same order, for the same number of steps.  Every few steps the log-probability of what remains
of both sentences, once they part, is taken: ``9.`` and ``11.``, with the end of the answer.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftkit.core.errors import UserError
from ftkit.data.decimals import SEEDS_OWN, Decimals, decimals
from scripts.reproduce.commands import Commands, kept
from scripts.reproduce.lines import draw, summary
from scripts.reproduce.page import insert

if TYPE_CHECKING:
    from ftkit.data.dataset import Dataset
    from ftkit.model.reader import Reader
    from ftkit.recipe import Recipe
    from ftkit.train.evaluation import Measures

RECIPES = Path(__file__).parents[2] / "recipes" / "tiny"
VOCABULARY = 512
MISREAD = 0.8
"""The share of texts on disputed pairs that take 11 for more than 9."""

RUNS = {
    "sft": ("sft", 5e-4, {}),
    "dft": ("dft", 5e-4, {"tau": 1.0, "gamma": 0.85, "denominator": "prompt"}),
    "dft2": ("dft", 5e-4, {"tau": 1.0, "gamma": 0.3, "denominator": "none"}),
    "dft2*": (
        "dft",
        5e-4,
        {"tau": 0.3, "gamma": 0.9, "denominator": "none", "score": "mean_log_likelihood"},
    ),
    "sft, lr x 4": ("sft", 2e-3, {}),
}
"""Method, learning rate and constants of each run; dft and dft2* have the published ones."""

Curve = dict[str, Any]
"""``steps``, and for each set of pairs, at each of these steps, [right, wrong] of each pair."""


@dataclass(frozen=True)
class Sizes:
    """How much is done: as reported, or as little as tests need."""

    pretrain: int = 120
    steps: int = 80
    every: int = 5
    prompts: int = 64
    texts: int | None = None
    """None = all."""
    learnt: int = 600
    watched: int = 100
    """Pairs in each set."""


QUICK = Sizes(pretrain=2, steps=2, every=1, prompts=8, texts=64, learnt=12, watched=6)


@dataclass(frozen=True)
class Bench:
    """The runs, in a folder."""

    commands: Commands
    out: Path
    sizes: Sizes
    seed: int = 0

    def prepare(self) -> None:
        """Write texts, rows, pairs and a tokenizer whose tokens are numbers; pretrain on these."""
        train, test = decimals("train", seed=self.seed), decimals("test", seed=self.seed)
        rng, own = random.Random(self.seed), Decimals(*SEEDS_OWN)
        texts = [pair.text(self._said(pair, rng)) for pair in train][: self.sizes.texts]
        disputed = [pair for pair in train if pair.disputed and pair != own]
        agreed = [pair for pair in train if not pair.disputed]
        half = self.sizes.learnt // 2
        learnt = [own, *disputed[: half - 1], *agreed[:half]]
        rng.shuffle(learnt)
        count = self.sizes.watched
        _write(self.out / "data/pretrain.jsonl", texts)
        _write(self.out / "data/learnt.jsonl", (pair.row() for pair in learnt))
        watched = {
            "own": [own],
            "learnt": disputed[: min(count, half - 1)],
            "held out": [pair for pair in test if pair.disputed][:count],
            "undisputed": [pair for pair in test if not pair.disputed][:count],
        }
        for name, pairs in watched.items():
            _write(self._pairs(name), (pair.pair() for pair in pairs))
        self._tokenizer([text["text"] for text in texts])
        self.commands(
            "pretrain",
            str(RECIPES / "pretrain.yaml"),
            f"run={self.out}/pretrain",
            f"data.train={self.out}/data/pretrain.jsonl",
            f"model.tokenizer={self.out}/tokenizer",
            f"train.steps={self.sizes.pretrain}",
            *self._common(),
            "--resume",
        )

    @staticmethod
    def _said(pair: Decimals, rng: random.Random) -> int:
        """Return the decimals that a text calls bigger."""
        return pair.long if rng.random() < MISREAD else pair.bigger

    def _tokenizer(self, texts: Sequence[str]) -> None:
        from ftkit.model.tokenizer import train_tokenizer

        trained = train_tokenizer(texts, VOCABULARY, split_digits=False)
        trained.save_pretrained(self.out / "tokenizer")

    def negatives(self) -> None:
        """Have the pretrained model answer the questions."""
        recipe = str(RECIPES / "dft.yaml")
        self.commands("gen-negatives", recipe, *self._constants(), *self._pool())

    def curve(self, name: str) -> Curve:
        """Train from the pretrained model; return what became of the pairs."""
        method, lr, constants = RUNS[name]
        run = self.out / re.sub("[^a-z0-9]+", "-", name.replace("*", " published"))

        def find() -> Curve:
            shutil.rmtree(run, ignore_errors=True)
            own = ["train.until={}"]
            if method == "dft":
                given = {"score": "log_likelihood", "negatives": 2, **constants}
                own = [*self._pool(), *(f"method.{key}={value}" for key, value in given.items())]
            said = [f"run={run}", *self._constants(), *own, f"train.lr={lr:g}"]
            said += [f"train.steps={self.sizes.steps}", f"eval.every={self.sizes.every}"]
            said += ["train.schedule=constant", "train.warmup=0", "checkpoint.every=null"]
            recipe = str(RECIPES / f"{method}.yaml")
            with self.commands.telling(shlex.join(["ftkit", method, recipe, *said])):
                return watched(recipe, said, self._pairs)

        return kept(run.with_suffix(".json"), find)

    def _pairs(self, name: str) -> Path:
        return self.out / "data" / f"{name.replace(' ', '-')}-pairs.jsonl"

    def _constants(self) -> list[str]:
        """Return what all methods are told."""
        rows = self.out / "data" / "learnt.jsonl"
        said = [f"model.path={self.out}/pretrain/model", f"data.train={rows}", f"data.eval={rows}"]
        return [*said, "eval.limit=1", *self._common()]

    def _pool(self) -> list[str]:
        """Return how negatives are sampled, and where they are."""
        return [f"data.pool={self.out}/pool", "sample.answers=4", "sample.max_tokens=24"]

    def _common(self) -> list[str]:
        size = f"train.prompts={self.sizes.prompts}"
        return ["data.max_length=64", size, "train.threads=1", f"seed={self.seed}"]


def _write(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


SETS = ("own", "learnt", "held out", "undisputed")
"""Pairs that are watched: 9.11 and 9.9; like it, learnt and held out; and those held out where the
longer number is the bigger one."""


@dataclass
class Watch:
    """Takes the place of a run's evaluation: looks at pairs, and remembers what it saw."""

    policy: Reader
    pairs: Mapping[str, Dataset]
    seen: dict[str, list[list[tuple[float, float]]]] = field(default_factory=dict)

    def __call__(self) -> Measures:
        """Measure every pair once."""
        from ftkit.train.evaluation import evaluate

        for name, pairs in self.pairs.items():
            measured = evaluate(self.policy, pairs)
            scores = [(row["score"], row["pairs"][0]["score"]) for row in measured.rows]
            self.seen.setdefault(name, []).append(scores)
        return measured


def watched(recipe_file: str, overrides: Sequence[str], file: Callable[[str], Path]) -> Curve:
    """Train as ``ftkit train`` does, and look at pairs before, on the way and at the end.

    Args:
        recipe_file: the recipe.
        overrides: ``KEY=VALUE``.
        file: the pairs of each set.
    """
    from rich.console import Console

    from ftkit.recipe import load_recipe
    from ftkit.run import build_loop, build_policy, read_data, set_up_torch
    from ftkit.train.interrupt import Interrupt
    from ftkit.train.monitor import Journal, display_for

    recipe = load_recipe(recipe_file, overrides).recipe
    set_up_torch(recipe)
    data = read_data(recipe)
    policy = build_policy(recipe, data)
    watch = Watch(policy, {name: _dataset(recipe, file(name), data.tokenizer) for name in SETS})
    Path(recipe.run).mkdir(parents=True)
    journal = Journal(Path(recipe.run), [], 0)
    display = display_for(Console(stderr=True, quiet=True), data.steps, 0)
    with Interrupt() as interrupt:
        loop = build_loop(
            recipe,
            data,
            policy,
            judge=None,
            engine=None,
            journal=journal,
            display=display,
            interrupt=interrupt,
        )
        loop.evaluate = watch
        watch()
        if (ended := loop.run()) != "steps":
            raise SystemExit(f"{recipe.run}: {ended}; run the same command again")
    journal.close()
    every = recipe.eval.every or data.steps
    return {"steps": sorted({*range(0, data.steps + 1, every), data.steps}), **watch.seen}


def _dataset(recipe: Recipe, file: Path, tokenizer: Any) -> Dataset:
    from ftkit.data.config import SourceConfig
    from ftkit.data.load import Settings, load_dataset

    settings = Settings(recipe.data, "preferences", tokenizer, recipe.seed)
    return load_dataset(SourceConfig(path=str(file)), settings)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it all, and write the page's table and figure; return the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce/decimals"))
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="reproduce-dft.md")
    parser.add_argument("--quick", action="store_true", help="next to nothing of it, as a test")
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else Sizes()
    bench = Bench(Commands(options.out / "log.txt"), options.out, sizes)
    try:
        bench.prepare()
        bench.negatives()
        curves = {name: bench.curve(name) for name in RUNS}
    except UserError as error:
        print(error, file=sys.stderr)
        return error.status
    insert(options.docs / "reproduce-dft.md", "decimals", told := summary(curves))
    (options.docs / "decimals.svg").write_text(draw(curves), encoding="utf-8")
    print(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
