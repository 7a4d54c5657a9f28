"""How many tokens a run sees, and how many of them go through a model at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ftkit.objectives import DFT
from ftkit.parallel.world import deal
from ftkit.plan.body import Passing

if TYPE_CHECKING:
    from ftkit.data.dataset import Dataset
    from ftkit.recipe import Recipe
    from ftkit.run_data import Data

MOST_ROWS = 2**20
"""So many rows of a run are looked at, one after another; what follows is taken to be like them."""


@dataclass(frozen=True)
class Rows:
    """The rows of all data sets, one set after the other."""

    prompt: np.ndarray
    """int64 [rows]: tokens of each prompt; of a document all but one."""
    answers: np.ndarray
    """int64 [rows]: how many answers go through the model with it."""
    longest: np.ndarray
    """int64 [rows]: tokens of the longest of them."""
    tokens: np.ndarray
    """int64 [rows]: of the prompt and all of its answers."""
    learnt: np.ndarray
    """int64 [rows]: those that are learnt."""
    cost: np.ndarray
    """int64 [rows]: by which they are dealt among processes: tokens in their data set."""
    first: np.ndarray
    """int64 [sets]: where each set begins."""


@dataclass(frozen=True)
class Work:
    """Steps and tokens of a run; where answers are sampled, the most that there can be."""

    steps: int
    prompts: int
    """Of a step, over all processes."""
    step: float
    """Tokens of a step on average, over all processes."""
    most: int
    """Tokens of the largest step."""
    total: int
    """Tokens of the run."""
    longest: int
    """Tokens of the longest row, a prompt with one answer."""
    first: Passing
    """The most that goes through a model at once at the beginning of a step."""
    later: Passing | None
    """The most in the rest of one; None where every step is one part."""
    parts: int
    """Parts of a step in one process, at most."""
    learnt: int
    """Tokens learnt of a step in one process, at most."""
    sampled: bool
    """Whether answers are sampled, and may be shorter."""


def work_of(recipe: Recipe, data: Data, processes: int, *, streams: bool) -> Work:
    """Return what a run sees.

    Args:
        recipe: of the run.
        data: what it reads.
        processes: among which prompts are dealt.
        streams: whether tokens go through as one stream; else as padded rows.
    """
    rows, train = _rows(recipe, data), recipe.train
    micro = train.micro_tokens
    sizes: list[int] = []
    firsts: list[Passing] = []
    laters: list[Passing] = []
    parts, learnt = 0, 0
    for step in _steps(recipe, data, rows):
        sizes.append(int(rows.tokens[step].sum()))
        for mine in _shares(recipe, rows, step, processes):
            learnt = max(learnt, int(rows.learnt[mine].sum()))
            found = list(_parts(rows, mine, micro) if streams else _padded(rows, mine, micro))
            parts = max(parts, len(found))
            firsts = [max([*firsts, found[0]], key=_tokens)]
            laters = [max([*laters, *found[1:]], key=_tokens)] if laters or found[1:] else []
    step_tokens = float(np.mean(sizes))
    return Work(
        steps=data.steps,
        prompts=train.prompts,
        step=step_tokens,
        most=max(sizes),
        total=round(step_tokens * data.steps),
        longest=int((rows.prompt + rows.longest).max()),
        first=firsts[0],
        later=laters[0] if laters else None,
        parts=parts,
        learnt=learnt,
        sampled=recipe.method.kind == "rollouts",
    )


def _shares(recipe: Recipe, rows: Rows, step: np.ndarray, processes: int) -> list[np.ndarray]:
    """Return the rows of a step that each process has, of those that have any."""
    if recipe.method.kind == "rollouts":
        shares = [step[rank::processes] for rank in range(processes)]
    else:
        shares = [step[mine] for mine in deal(rows.cost[step].tolist(), processes)]
    return [mine for mine in shares if len(mine)]


def _tokens(part: Passing) -> int:
    return part.tokens


def _steps(recipe: Recipe, data: Data, rows: Rows) -> Iterator[np.ndarray]:
    """Yield the rows of each step."""
    prompts, left = recipe.train.prompts, data.rows
    for step in range(min(data.steps, max(MOST_ROWS // prompts, 1))):
        found = data.order.rows_of_step(step, prompts)
        if left is not None and recipe.method.kind != "rollouts":
            found = found[: left - step * prompts]
        yield np.array([rows.first[number] + row for number, row in found])


def _rows(recipe: Recipe, data: Data) -> Rows:
    """Return the sizes of all rows."""
    sets = [one for one, _ in data.sets.train]
    first = np.cumsum([0, *(len(one) for one in sets)])[:-1]
    prompt = np.concatenate([_prompts(one) for one in sets])
    tokens, learnt, longest = (
        np.concatenate([getattr(one, name).astype(np.int64) for one in sets])
        for name in ("tokens", "trained", "lengths")
    )
    answers = np.concatenate([np.full(len(one), one.parts[0].answers) for one in sets])
    longest -= prompt
    cost = tokens
    method, sample = recipe.method, recipe.sample
    if method.kind == "rollouts" and sample is not None:
        answers[:], longest[:] = sample.answers, sample.max_tokens
        learnt = answers * longest
        tokens = prompt + learnt
    if isinstance(method, DFT) and data.pool is not None:
        place = {name: at for at, name in enumerate(data.pool.places)}
        mine = np.array([place[group.id] for one in sets for group in one])
        negative = data.pool.lengths[mine] - prompt  # the longest that it has
        taken = np.minimum(data.pool.sizes[mine], method.negatives)
        longest, answers = np.maximum(longest, negative), answers + taken
        tokens, learnt = tokens + taken * negative, learnt + taken * negative
    return Rows(prompt, answers, longest, tokens, learnt, cost, first)


def _prompts(one: Dataset) -> np.ndarray:
    sizes = [part.sizes[rows, 0] for part, rows in zip(one.parts, one.where, strict=True)]
    return np.concatenate(sizes).astype(np.int64)


def _parts(rows: Rows, mine: np.ndarray, micro: int) -> Iterator[Passing]:
    """Yield the parts that a step's rows are cut into (``core.part.cut``)."""
    tokens = learnt = longest = keys = 0
    for row in mine.tolist():
        for own in _pieces(rows, row, micro):
            if tokens and tokens + own.tokens > micro:
                yield Passing(tokens, learnt, longest, keys)
                tokens = learnt = longest = keys = 0
            tokens, learnt = tokens + own.tokens, learnt + own.learnt
            longest, keys = max(longest, own.longest), keys + own.keys
    yield Passing(tokens, learnt, longest, keys)


def _pieces(rows: Rows, row: int, micro: int) -> Iterator[Passing]:
    """Yield a row whole, or, where its answers are too many, some of them at a time."""
    prompt, answers, longest, tokens, learnt = (
        int(each[row])
        for each in (rows.prompt, rows.answers, rows.longest, rows.tokens, rows.learnt)
    )
    once = answers if tokens <= micro else max(1, (micro - prompt) // max(longest, 1))
    left = answers
    while left > 0:
        count = min(once, left)
        share = count / answers
        own = prompt + round((tokens - prompt) * share)
        keys = own + (count - 1) * prompt
        yield Passing(own, round(learnt * share), prompt + longest, keys)
        left -= count


def _padded(rows: Rows, mine: np.ndarray, micro: int) -> Iterator[Passing]:
    """Yield the parts of padded rows, each with its own prompt; ``tokens`` are their places."""
    count = longest = learnt = 0
    for row in mine.tolist():
        answers = int(rows.answers[row])
        length, own = int(rows.prompt[row] + rows.longest[row]), int(rows.learnt[row]) / answers
        for _ in range(answers):
            if count and (count + 1) * max(longest, length) > micro:
                yield _row_part(count, longest, learnt)
                count = longest = learnt = 0
            count, longest, learnt = count + 1, max(longest, length), learnt + round(own)
    yield _row_part(count, longest, learnt)


def _row_part(count: int, longest: int, learnt: int) -> Passing:
    return Passing(count * longest, learnt, longest, count * longest)
