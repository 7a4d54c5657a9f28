"""Steps and tokens are those that a run sees, and parts those that a batch is cut into."""

from __future__ import annotations

import pytest

from ftkit.core.batch import collate
from ftkit.core.part import cut
from ftkit.parallel.world import OneProcess
from ftkit.plan.work import work_of
from ftkit.run import read_data
from ftkit.sources.given import Given


class Rank(OneProcess):
    """A world of which nobody asks more than which rank this is."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size


def steps_of(loaded, data, processes=1):
    """The batches of each step, of each process."""
    sets, prompts = [one for one, _ in data.sets.train], loaded.recipe.train.prompts
    ranks = [
        Given(sets, data.order, prompts, Rank(rank, processes), data.rows)
        for rank in range(processes)
    ]
    for step in range(1, data.steps + 1):
        yield [collate(groups) for rank in ranks if (groups := rank.groups(step))]


def tokens_of(batch):
    return sum(map(len, batch.prompts)) + int(batch.length.sum())


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("micro", [30, 150, 10**6])
@pytest.mark.parametrize("method", ["sft", "dpo"])
@pytest.mark.parametrize("padded", [False, True])
def test_parts_are_those_of_the_batches(recipe, method, micro, processes, padded):
    loaded = recipe(method, f"train.micro_tokens={micro}", "train.steps=null", "train.epochs=1.3")
    data = read_data(loaded.recipe)
    work = work_of(loaded.recipe, data, processes, streams=not padded)
    every = list(steps_of(loaded, data, processes))
    assert work.steps == len(every)
    sizes = [sum(map(tokens_of, batches)) for batches in every]
    assert (work.most, work.total) == (max(sizes), sum(sizes))
    parts = [
        [part.of(batch) for part in cut(batch, micro, padded=padded)]
        for batches in every
        for batch in batches
    ]
    assert work.parts == max(map(len, parts))

    def places(part):
        if not padded:
            return tokens_of(part)
        rows = [
            len(prompt) + int(part.length[b, k])
            for b, prompt in enumerate(part.prompts)
            for k in range(part.size[1])
            if part.present[b, k]
        ]
        return len(rows) * max(rows)

    rough = method == "dpo"  # answers to one prompt count as equally long
    assert work.first.tokens == pytest.approx(max(places(own[0]) for own in parts), rel=0.3 * rough)
    later = [places(part) for own in parts for part in own[1:]]
    assert (work.later is None) == (not later)
    if later:
        assert work.later.tokens == pytest.approx(max(later), rel=0.3 * rough)
    assert work.learnt == max(int(b.mask.sum()) for batches in every for b in batches)


@pytest.mark.parametrize("micro", [64, 10**6])
def test_answers_that_are_sampled_are_as_long_as_they_can_be(recipe, micro):
    loaded = recipe("grpo", f"train.micro_tokens={micro}")
    data = read_data(loaded.recipe)
    work = work_of(loaded.recipe, data, 1, streams=True)
    ((rows, _),) = data.sets.train
    steps, asked, answers, room = 2, 6, 4, 16
    prompts = [
        [len(rows[row].prompt) for _, row in data.order.rows_of_step(step, asked)]
        for step in range(steps)
    ]
    most = [sum(own) + asked * answers * room for own in prompts]
    assert (work.sampled, work.most, work.total) == (True, max(most), sum(most))
    assert work.longest == max(len(group.prompt) for group in rows) + room
    assert work.learnt == asked * answers * room
    if micro == 64:
        assert 64 - room < work.first.tokens <= 64
        assert work.parts >= asked * answers * room / 64
    else:
        assert (work.first.tokens, work.later, work.parts) == (max(most), None, 1)
        seen = [m + (answers - 1) * sum(own) for m, own in zip(most, prompts, strict=True)]
        assert work.first.keys == max(seen)  # each prompt is seen by all of its answers
