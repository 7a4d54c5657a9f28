"""``ftkit samples``: what a run's policy answered, and how it was judged."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from ftkit.core.errors import Fault, UserError, user_error
from ftkit.tasks.curves.jsonl import GrowingFile
from ftkit.tasks.curves.log import require_run
from ftkit.tasks.visible import visible
from ftkit.tasks.wanted import (
    Wanted,
    bounds,
    first,
    last_step,
    mean_reward,
    reward_of,
    rows,
    status_of,
)

MOST_STEPS = 12
"""So many steps are named one by one."""

LONGEST = 1500
"""Characters of a text that are shown, unless all are asked for."""

BESIDE = 34
"""A group whose texts have no more characters each is shown as a table."""

COLOURS = {"correct": "green", "incorrect": "red", "": "dim"}
"""Of a verdict; of any other yellow."""


def samples(
    run: str,
    *,
    step: int | None,
    last: bool,
    kind: str | None,
    status: str | None,
    reward: str | None,
    grep: str | None,
    n: int,
    full: bool,
    as_json: bool,
) -> None:
    """Show answers that were written during a run, each group with its prompt.

    Args:
        run: the run's folder.
        step: only those of this step.
        last: only those of the last step that has any of the others' kind.
        kind: ``rollout``, ``greedy`` or ``sampled``.
        status: only answers that got this verdict.
        reward: only answers with a reward in ``MIN..MAX``, either of which may be left out.
        grep: only answers with this text in them or in their prompt.
        n: at most so many groups.
        full: show texts whole.
        as_json: a line a group: the line of the file, with ``mean_reward`` and, as indices of
            answers, ``matches``.

    Raises:
        UserError: if the run has no such answers, saying which it has.
    """
    file, wanted = _open(run, step=step, last=last, reward=reward)
    wanted = replace(wanted, kind=kind, status=status, text=grep)
    found = last_step(file, wanted, n) if last else first(file, wanted, n)
    if not found.groups:
        raise _nothing(file, wanted)
    for row, matches in found.groups:
        if as_json:
            typer.echo(json.dumps({**row, "mean_reward": mean_reward(row), "matches": matches}))
        else:
            _show(Console(), row, matches, None if full else LONGEST)
    notes = [f"there are more; -n shows more than {n}"] * found.more
    if file.cut is not None:
        notes.append(f"line {file.cut} was cut while it was written; left out")
    for note in notes:
        Console(stderr=True).print(Text(f"{file.path}: {note}", "dim"), soft_wrap=True)


def _open(
    run: str, *, step: int | None, last: bool, reward: str | None
) -> tuple[GrowingFile, Wanted]:
    """Return the file, and which steps and rewards are wanted; or all that is wrong with them."""
    faults: list[Fault] = []
    path = Path(run) / "samples.jsonl"
    low = high = None
    try:
        require_run(Path(run))
        if not path.is_file() or not path.stat().st_size:
            raise user_error(
                str(path),
                "no answers were written down in this run",
                "they are where a recipe has a verify: section and held-out rows, or samples",
            )
    except UserError as error:
        faults += error.faults
    if last and step is not None:
        faults.append(Fault("--last", "stands beside --step", "give one of the two"))
    try:
        low, high = bounds(reward) if reward is not None else (None, None)
    except ValueError:
        fault = Fault(
            f"--reward {reward}", "is no range", "write MIN..MAX, MIN.., ..MAX or a number"
        )
        faults.append(fault)
    if faults:
        raise UserError(faults)
    return GrowingFile(path), Wanted(step=step, low=low, high=high)


def _nothing(file: GrowingFile, wanted: Wanted) -> UserError:
    """Say what the file has instead of what was wanted."""
    steps: dict[int, None] = {}
    kinds, statuses, rewards = Counter[str](), Counter[str](), Counter[float]()
    for row in rows(file, None):
        steps[row["step"]] = None
        kinds[str(row.get("decoding", "unknown"))] += 1
        statuses.update(status_of(each) or "not known" for each in row["answers"])
        found = map(reward_of, row["answers"])
        rewards.update(reward for reward in found if reward is not None)
    if not steps:
        return user_error(str(file.path), "holds no whole line", "wait for the run to write one")
    span = f"{min(rewards):g} to {max(rewards):g}" if rewards else "none"
    return user_error(
        str(file.path),
        f"has no answer {wanted.words()}".rstrip(),
        f"it has steps {_series(list(steps))}; groups: {_counts(kinds)}; verdicts: "
        f"{_counts(statuses)}; rewards: {span}",
    )


def _series(steps: Sequence[int]) -> str:
    """Name steps, of many the ends.

    >>> _series([5]), _series([5, 10, 15]), _series(range(0, 100, 5))
    ('5', '5, 10, 15', '0 to 95 (20 of them)')
    """
    if len(steps) <= MOST_STEPS:
        return ", ".join(map(str, steps))
    return f"{min(steps)} to {max(steps)} ({len(steps)} of them)"


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counter.most_common())


def _show(console: Console, row: dict[str, Any], matches: Sequence[int], most: int | None) -> None:
    """Print a group: its prompt and those of its answers that are wanted."""
    answers = row["answers"]
    mean = mean_reward(row)
    told = [f"step {row['step']}", str(row.get("decoding", "")), str(row.get("id", ""))]
    told += [f"{len(answers)} answers"] if len(answers) > 1 else []
    told += [f"mean reward {mean:.4g}"] if mean is not None and len(answers) > 1 else []
    told += [str(row["source"])] if row.get("source") else []
    head = "  ".join(filter(None, map(visible, told)))
    console.print(Text(f"-- {head}", "bold"), soft_wrap=True)
    blocks = [(str(row.get("prompt_text", "")), "prompt", "cyan")]
    blocks += [(str(row["truth"]), "truth", "cyan")] if row.get("truth") is not None else []
    blocks += [(str(answers[n].get("text", "")), *_head(answers[n])) for n in matches]
    beside = all(len(visible(text)) <= BESIDE and "\n" not in text for text, _, _ in blocks)
    for text, said, colour in blocks:
        block = _beside(text, said, colour) if beside else _below(text, said, colour, most)
        console.print(block, soft_wrap=True)
    if len(matches) < len(answers):
        rest = len(answers) - len(matches)
        console.print(Text(f"   {rest} more that were not asked for", "dim"), soft_wrap=True)
    console.print()


def _head(answer: dict[str, Any]) -> tuple[str, str]:
    """Return what stands before an answer, and its colour."""
    status, reward = status_of(answer), reward_of(answer)
    finish = "cut" if answer.get("finish") == "length" else str(answer.get("finish", ""))
    said = [
        status,
        "no reward" if reward is None else f"reward {reward:g}",
        f"{len(answer.get('tokens', ()))} tokens",
        finish,
        str(answer.get("excluded", "")),
    ]
    return visible(", ".join(filter(None, said))), COLOURS.get(status, "yellow")


def _beside(text: str, head: str, colour: str) -> Text:
    """Return a short text, and beside it what is said of it."""
    return Text.assemble(f"   {visible(text):<{BESIDE}}  ", (head, colour))


def _below(text: str, head: str, colour: str, most: int | None) -> Text:
    """Return what is said of a text, and below it the text; of a long one its two ends."""
    if most is not None and len(text) > most:
        half = most // 2
        told = f"... {len(text) - 2 * half:,} characters left out, --full shows them ..."
        text = f"{text[:half]}\n{told}\n{text[-half:]}"
    lines = visible(text).split("\n")
    return Text.assemble((f"   {head}\n", colour), "\n".join(f"   | {line}" for line in lines))
