"""What a recipe says of rollouts reaches the part that does it."""

from __future__ import annotations

from contextlib import ExitStack
from functools import reduce

import pytest

from ftkit.objectives import DisCO
from ftkit.recipe import load_recipe
from ftkit.run import build_loop, build_policy, read_data
from ftkit.run_rollouts import outside_of
from ftkit.samplers.hf import HFSampler
from ftkit.train.critic import Advantages
from ftkit.train.optimizer import Optimizer
from ftkit.train.trust_region import TrustRegion
from tests.end_to_end.test_critics import without_rates

SAMPLE = {"max_tokens": 4, "answers": 4}
PARTS = ("journal", "display", "interrupt")


def read(recipe, method, *overrides):
    path = recipe(method={"name": method}, sample=SAMPLE, verify={"name": "exact"})
    loaded = load_recipe(str(without_rates(path, method)), overrides).recipe
    return loaded, read_data(loaded)


@pytest.fixture
def built(recipe):
    """Return a function that ties a recipe's parts together."""
    with ExitStack() as stack:

        def build(method, *overrides):
            loaded, data = read(recipe, method, *overrides)
            policy = build_policy(loaded, data)
            judge = stack.enter_context(outside_of(loaded, policy)).judge
            parts = dict.fromkeys(PARTS)
            return build_loop(loaded, data, policy, judge=judge, engine=None, **parts)

        yield build


def at(loop, place):
    """What stands at a dotted place."""
    return reduce(
        lambda part, name: part[name] if isinstance(part, dict) else getattr(part, name),
        place.split("."),
        loop,
    )


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.prompts=3", {"source.prompts": 3}),
        ("train.updates=3", {"source.updates": 3, "source.epochs": 1}),
        ("train.rollout_epochs=3", {"source.epochs": 3, "source.updates": 1}),
        ("sample.logged=5", {"source.logged": 5}),
        ("sample.answers=3", {"source.asking.answers": 3}),
        ("sample.max_tokens=7", {"source.asking.sampler.config.max_tokens": 7}),
        (
            "sample.temperature=0.6",
            {
                "source.asking.temperature": 0.6,
                "source.asking.sampler.config.temperature": 0.6,
                "learner.temperature": 0.6,
                "evaluate.keywords.sample.temperature": 0.6,
            },
        ),
        ("seed=9", {"source.asking.seed": 9, "source.order.seed": 9}),
        ("method.clip_low=0.3", {"learner.objective.clip_low": 0.3}),
    ],
)
def test_each_key_reaches_its_part(built, override, expected):
    loop, usual = built("grpo", override), built("grpo")
    assert {place: at(loop, place) for place in expected} == expected
    differs = {place for place in expected if at(usual, place) != expected[place]}
    assert differs, "the default says nothing"


def test_parts_are_shared(built):
    """One policy answers, is looked at, and learns; one judge judges all."""
    loop = built("grpo")
    asking, policy = loop.source.asking, loop.learner.policy
    assert asking.policy is policy
    assert isinstance(asking.sampler, HFSampler)
    assert asking.sampler.model is policy.model
    assert loop.evaluate.args[0] is policy
    assert loop.evaluate.keywords["judge"] is asking.judge
    assert type(loop.optimizer) is Optimizer
    assert {*map(id, loop.optimizer.weights.values())} == {*map(id, policy.model.parameters())}


def test_the_verifier_is_the_recipes_and_is_watched(built):
    both = "[{name: exact, after: '#', weight: 0.5}, {name: length, soft: 1, hard: 9}]"
    loop = built("grpo", f"verify={both}")
    asking = loop.source.asking
    exact, length = (part.config for part in asking.judge.parts)
    assert (exact.after, exact.weight, length.hard) == ("#", 0.5, 9)
    assert asking.watch.__self__.seen == 0
    loop.source.groups(1)
    assert asking.watch.__self__.seen == 8 * 4


@pytest.mark.parametrize(
    ("overrides", "drop", "refill"),
    [
        ([], False, 0),
        (["method.preset=dapo"], True, 0),
        (["method.preset=gpg", "method.refill=2"], True, 2),
        (["method.drop=true", "method.refill=3"], True, 3),
        (["method.preset=dapo", "method.drop=false"], False, 0),
    ],
)
def test_what_grpo_drops_and_asks_again(built, overrides, drop, refill):
    source = built("grpo", *overrides).source
    assert (source.drop, source.refill) == (drop, refill)


@pytest.mark.parametrize(
    ("method", "overrides", "keeps"),
    [
        ("grpo", [], False),
        ("grpo", ["train.updates=2"], True),
        ("grpo", ["train.rollout_epochs=2"], True),
        ("grpo", ["method.beta=0.1"], False),
        ("disco", ["train.updates=2"], True),
        ("trpo", [], False),
        ("ppo", [], False),
        ("ppo", ["method.beta=0.1"], True),  # log π_old - log π_ref is rewarded
        ("ppo", ["method.beta=0.1", "method.kl_in=loss"], False),
    ],
)
def test_old_log_probabilities_are_kept_where_they_are_others(built, method, overrides, keeps):
    assert built(method, *overrides).source.asking.keeps_old == keeps


@pytest.mark.parametrize(
    ("method", "overrides", "looks"),
    [
        ("grpo", [], set()),
        ("grpo", ["method.beta=0.1"], {"reference"}),
        ("disco", [], set()),
        ("ppo", [], {"value"}),
        ("ppo", ["method.beta=0.1"], {"value", "reference"}),
        ("ppo", ["method.beta=0.1", "method.critic=shared"], {"value", "reference"}),
    ],
)
def test_what_is_looked_at_before_learning(built, method, overrides, looks):
    asking = built(method, *overrides).source.asking
    assert set(asking.looks) == looks
    assert isinstance(asking.finish, Advantages) == (method == "ppo")


@pytest.mark.parametrize(
    ("method", "overrides", "binary"),
    [
        ("disco", [], True),
        ("disco", ["method.threshold=0.5"], False),
        ("disco", ["method.threshold=0"], False),
        ("grpo", [], False),
    ],
)
def test_only_disco_without_a_threshold_needs_rewards_of_0_and_1(built, method, overrides, binary):
    assert built(method, *overrides).source.asking.binary == binary


def test_trpo_is_learner_and_update_in_one_at_the_samples_temperature(built):
    loop = built("trpo", "sample.temperature=0.6")
    assert loop.learner is loop.optimizer
    assert isinstance(loop.learner, TrustRegion)
    assert loop.learner.temperature == 0.6


@pytest.mark.parametrize(
    ("prompts", "updates", "passes", "epochs"),
    [(8, 1, 1, 1), (8, 2, 3, 1), (6, 3, 2, 1), (8, 2, 1, 3)],
)
def test_an_epoch_asks_every_prompt_and_learns_as_often_as_said(
    recipe, prompts, updates, passes, epochs
):
    said = [f"train.prompts={prompts}", f"train.updates={updates}", "train.steps=null"]
    said += [f"train.rollout_epochs={passes}", f"train.epochs={epochs}"]
    _, data = read(recipe, "grpo", *said)
    rollouts = -(-80 * epochs // (prompts * updates))  # the last one may ask some again
    assert data.steps == rollouts * updates * passes


@pytest.mark.parametrize(
    ("overrides", "warned"),
    [
        ([], True),
        (["train.updates=2"], False),
        (["train.rollout_epochs=2"], False),
        (["method.trust=none"], False),
        (["method.trust=kl"], False),
    ],
)
def test_a_constraint_that_never_acts_is_told_of(recipe, overrides, warned):
    _, data = read(recipe, "disco", *overrides)
    assert any("the constraint never acts" in line for line in data.warnings) == warned
    assert len(data.warnings) == warned


def test_remarks_of_a_method_are_the_runs(recipe):
    loaded, data = read(recipe, "disco", "method.trust=clip", "train.updates=2")
    assert isinstance(loaded.method, DisCO)
    assert tuple(data.warnings) == loaded.method.remarks()
    assert "score: likelihood_ratio" in data.warnings[0]
