"""Changes that are named are legal, and save what planning them anew says."""

from __future__ import annotations

import pytest

from ftkit.plan.changes import Change, Planner
from ftkit.plan.machine import GIB, Machine
from ftkit.plan.models import Shelf
from ftkit.run import read_data
from tests.plan.conftest import VALUES


@pytest.fixture
def planner(recipe):
    """Return a function that plans a recipe for GPUs with little memory."""

    def make(method="sft", *said, processes=1, memory=1, kind="cuda", **sections):
        loaded = recipe(method, *said, **sections)
        data = read_data(loaded.recipe)
        machine = Machine(kind, processes, memory, None, "a test")
        return loaded, Planner(
            loaded.resolved(), loaded.recipe, data, machine, Shelf(data.tokenizer)
        )

    return make


def named(outcomes):
    return {str(each.change) for each in outcomes}


@pytest.mark.parametrize(("method", "processes"), [("sft", 4), ("ppo", 1)])
def test_every_change_can_be_said_and_saves_what_it_says(planner, recipe, method, processes):
    _, plan = planner(method, processes=processes)
    now = plan.estimate()
    found = plan.changes(now)
    assert len(found) > 4
    assert found == sorted(found, key=lambda each: -each.saves)
    for each in found:
        if each.change.gpus is not None:
            continue
        said = str(each.change).replace("{r: 16}", "{r:16}").split(" ")
        again = recipe(method, *(part.replace("{r:16}", "{r: 16}") for part in said))
        other = Planner(again.resolved(), again.recipe, plan.data, plan.machine, plan.shelf)
        assert other.estimate().peak == each.peak == now.peak - each.saves


def test_what_would_change_nothing_is_not_named(planner):
    _, plan = planner("sft", "model.checkpointing=true", "train.micro_tokens=60")
    found = named(plan.changes(plan.estimate()))
    assert not any("checkpointing" in each or "micro_tokens" in each for each in found)


def test_what_the_rules_refuse_is_not_named(planner, made):
    _, trpo = planner("trpo", processes=4)
    found = named(trpo.changes(trpo.estimate()))
    assert not any("zero" in each or "offload" in each or "bfloat16" in each for each in found)
    init = {"path": None, "tokenizer": str(made / "base"), "init": {"architecture": "qwen2"}}
    _, new = planner("sft", model=init | {"init": {"architecture": "qwen2", **VALUES}})
    found = named(new.changes(new.estimate()))
    assert found
    assert not any("lora" in each for each in found)


def test_stages_are_for_several_processes_and_offloading_for_gpus(planner):
    _, alone = planner("sft")
    found = named(alone.changes(alone.estimate()))
    assert not any("zero=1" in each or "zero=2" in each for each in found)
    _, cpu = planner("sft", processes=4, kind="cpu")
    found = named(cpu.changes(cpu.estimate()))
    assert not any("offload" in each or "gpus" in each for each in found)
    assert any("parallel.zero" in each for each in found)


def test_the_mildest_value_that_fits_is_named(planner):
    _, plan = planner("sft", "train.micro_tokens=4096", "train.prompts=32")
    now = plan.estimate()
    halves = [
        plan.estimate(Change({"train.micro_tokens": now.part.tokens // 2**i})) for i in (1, 2)
    ]
    memory = (halves[0].peak + halves[1].peak) // 2  # the first half is too much, the second fits
    machine = Machine("cuda", 1, memory, None, "a test")
    fitting = Planner(plan.tree, plan.recipe, plan.data, machine, plan.shelf)
    (micro,) = [each for each in fitting.changes(now) if "micro_tokens" in str(each.change)]
    assert (micro.change.keys["train.micro_tokens"], micro.fits) == (now.part.tokens // 4, True)


def test_changes_together_fit_and_leave_what_is_learnt(planner):
    _, plan = planner("sft", "train.micro_tokens=4096", "train.prompts=32")
    now = plan.estimate()
    single = min(each.peak for each in plan.changes(now) if each.change.same)
    machine = Machine("cuda", 1, single - 1, None, "a test")
    best = Planner(plan.tree, plan.recipe, plan.data, machine, plan.shelf).together(now)
    assert best is not None
    assert best.fits
    assert best.change.same
    assert len(best.change.keys) > 1
    assert best.peak == plan.estimate(best.change).peak <= single - 1


def test_nothing_fits_into_nothing(planner):
    _, plan = planner("sft")
    assert plan.together(plan.estimate()) is None


def test_vllm_in_the_process_can_sleep_or_take_less(planner):
    how = {"engine": "vllm", "vllm": {"memory": 0.8, "sleep": False}}
    _, plan = planner("grpo", memory=8 * GIB, sample=how)
    now = plan.estimate()
    assert now.phases["sample"] > 0.8 * 8 * GIB
    assert now.phases["learn"] > 0.8 * 8 * GIB
    found = {str(each.change): each for each in plan.changes(now)}
    (less,) = [each for said, each in found.items() if "vllm.memory" in said]
    share = less.change.keys["sample.vllm.memory"]
    assert less.saves == pytest.approx((0.8 - share) * 8 * GIB, rel=0.01)


def test_a_change_reads_as_the_command_line_takes_it(recipe):
    change = Change({"model.checkpointing": True, "model.lora": {"r": 16}}, gpus=8)
    assert str(change) == "model.checkpointing=true model.lora={r: 16} --gpus 8"
    loaded = recipe("sft", "model.checkpointing=true", "model.lora={r: 16}")
    assert (loaded.recipe.model.checkpointing, loaded.recipe.model.lora.r) == (True, 16)
