"""Kills running ranks, again and again: each time the run ends, goes on, and comes to the same end.

Runs of sft, dft and grpo on two ranks at each stage of ZeRO, on the CPU, with a checkpoint every
other step or so.  Of each of them the run that nobody kills is made first.  Then, so many times,
the same is begun in a new folder, and a random rank of it (one time in ten the launcher) is killed
with SIGKILL at a random moment, more often than not while a checkpoint is written.  The launcher
must end in time, with a status that is not 0, and name the rank; no process may be left; what
claims to be a complete checkpoint must be one.  ``--resume`` goes on, perhaps killed again, until
the end; metrics, evaluations, samples, weights, the optimizer's state, what dft remembers and the
exported model must be those of the run that nobody killed, bit for bit.

    python scripts/kill_runs.py                      # 50 times, an hour on two cores
    python scripts/kill_runs.py --times 5 --seed 7
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, product
from pathlib import Path
from typing import Any

from ftkit.core.errors import RunError
from scripts.kills.job import Job, Plan, WrongError
from scripts.kills.recipes import METHODS, prepare, write_recipe
from scripts.kills.results import folders, read_checkpoints, result_of

AGAIN = 0.3
"""How often a run that goes on is killed once more."""


@dataclass
class Tally:
    """What was found."""

    ends: list[float] = field(default_factory=list)
    """Seconds from each kill to the end of all processes."""
    saving: int = 0
    """How many kills left a half-written checkpoint."""
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Whole:
    """A run that nobody killed."""

    recipe: Path
    seconds: float
    result: dict[str, Any]

    @classmethod
    def made(cls, recipe: Path) -> Whole:
        """Run a recipe."""
        run, start = recipe.with_suffix(""), time.monotonic()
        job = Job(recipe, run)
        if job.process.wait() != 0:
            raise WrongError(job.log.read_text())
        return cls(recipe, time.monotonic() - start, result_of(run))


def kill_until_done(whole: Whole, run: Path, draw: random.Random, tally: Tally) -> bool:
    """Kill a run, go on with it, and so on until its end; say whether it was killed at all.

    Raises:
        WrongError: if anything is not as it must be.
    """
    always = ("checkpoint.background=true",) if draw.random() < 0.5 else ()  # noqa: PLR2004
    arguments, killed = always, False
    while True:
        plan = Plan.drawn(draw, 0.8 * whole.seconds)
        job = Job(
            whole.recipe, run, arguments, plan if not killed or draw.random() < AGAIN else None
        )
        moment = job.kill() if job.plan else None
        if moment is None:
            break
        killed, arguments = True, (*always, "--resume")
        tally.saving += bool(folders(run, ".tmp-*"))
        tally.ends.append(job.end(moment))
        say(f"    {plan}: ended after {tally.ends[-1]:.2f} s, checkpoints {read_checkpoints(run)}")
    if job.process.wait() != 0:
        raise WrongError(f"it does not go on:\n{job.log.read_text()}")
    found = result_of(run)
    other = [name for name, value in whole.result.items() if found.get(name) != value]
    if other or found.keys() != whole.result.keys():
        raise WrongError(f"it came to another end: {', '.join(other[:5])}")
    return killed


def one_time(whole: Whole, seeds: Callable[[], int], tally: Tally) -> None:
    """Kill a run of a recipe, once at least, and note what is wrong."""
    while True:
        seed = seeds()
        run = whole.recipe.with_suffix(f".{seed}")
        try:
            killed = kill_until_done(whole, run, random.Random(seed), tally)
        except (WrongError, RunError) as error:
            tally.wrong.append(f"{run.name}: {error}")
            say(f"    WRONG: {error}")
            return  # its folder stays, to be looked at
        shutil.rmtree(run)
        if killed:
            return


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=50, help="runs that are killed (50)")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed and when (0)")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"({','.join(METHODS)})")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ftkit-kills-"))
    prepare(folder)
    kinds = list(product(args.methods.split(","), range(4)))[: args.times]
    wholes = []
    for name, zero in kinds:
        recipe = write_recipe(folder, name, zero)
        if name == "dft" and zero == 0:
            pool = [sys.executable, "-m", "ftkit", "gen-negatives", str(recipe)]
            subprocess.run(pool, check=True, stdout=subprocess.DEVNULL)
        wholes.append(Whole.made(recipe))
        say(f"{name}, zero {zero}: {wholes[-1].seconds:.0f} s when nobody kills it")
    tally, numbers = Tally(), count(1000 * args.seed)
    for number in range(args.times):
        whole = wholes[number % len(wholes)]
        say(f"{number + 1}  {whole.recipe.stem}")
        one_time(whole, lambda: next(numbers), tally)
    say(
        f"{args.times - len(tally.wrong)} of {args.times} runs, killed {len(tally.ends)} times, "
        f"{tally.saving} of them in a half-written checkpoint, came to the same end\n"
        f"from the kill to the end of all processes: median {statistics.median(tally.ends):.2f} s, "
        f"at most {max(tally.ends):.2f} s"
    )
    if tally.wrong:
        say("\n".join(["", f"in {folder}:", *tally.wrong]))
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
