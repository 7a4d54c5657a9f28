"""What recipes of grpo and disco may and must say."""

from __future__ import annotations

import pytest

from ftkit.recipe import dump_yaml, load_recipe
from tests.recipe.test_rules import JUDGED, faults

ROLLED = (*JUDGED, "sample={answers: 4}")
GRPO = ("method.name=grpo", *ROLLED)
DISCO = ("method.name=disco", *ROLLED)
L1 = "method.objective=L1"
VLLM = (*GRPO, "sample.engine=vllm")
SERVED = (*VLLM, "sample.vllm.server=http://a:1")
SEVERAL = (*VLLM, "sample.vllm.server=['http://a:1', 'http://b:1']")


@pytest.mark.parametrize(
    ("unread", "read"),
    [
        (["train.updates=2"], [*GRPO, "train.updates=2"]),
        (["train.rollout_epochs=2"], [*GRPO, "train.rollout_epochs=2"]),
        ([*JUDGED, "sample={logged: 3}"], [*GRPO, "sample.logged=3"]),
        ([*GRPO, "method.kl=k2"], [*GRPO, "method.kl=k2", "method.beta=0.1"]),
        ([*GRPO, "method.constant=9"], [*GRPO, "method.constant=9", "method.length=constant"]),
        ([*GRPO, "method.refill=1"], [*GRPO, "method.refill=1", "method.preset=dapo"]),
        ([*GRPO, "method.preset=gpg", "method.clip_low=0.1"], [*GRPO, "method.clip_low=0.1"]),
        ([*GRPO, "method.preset=gpg", "method.ratio=sequence"], [*GRPO, "method.ratio=sequence"]),
        ([*DISCO, L1, "method.tau=2"], [*DISCO, "method.tau=2"]),
        ([*DISCO, "method.trust=kl", "method.delta=1"], [*DISCO, "method.delta=1"]),
        ([*DISCO, "method.trust=none", "method.beta=1"], [*DISCO, "method.beta=1"]),
        ([*DISCO, "method.trust=none", "method.kl=k3"], [*DISCO, "method.kl=k3"]),
        ([*DISCO, "method.clip=0.1"], [*DISCO, "method.clip=0.1", "method.trust=clip"]),
    ],
)
def test_a_constant_that_a_run_does_not_read_cannot_be_set(write, valid, unread, read):
    (fault,) = faults(write(valid), unread).values()
    assert "would not be read: " in fault
    assert not faults("r.yaml", read)


@pytest.mark.parametrize(
    ("said", "path", "words"),
    [
        (["method.name=grpo", *JUDGED], "sample", "learns from answers that it samples"),
        (["method.name=grpo", "sample={answers: 4}"], "verify", "answers that are judged"),
        ([*GRPO, "sample.temperature=0"], "sample.temperature", "would be equal"),
        ([*GRPO, "sample.top_k=5"], "sample.top_k", "another distribution"),
        ([*DISCO, "sample.top_p=0.9"], "sample.top_p", "another distribution"),
        ([*DISCO, "sample.answers=1"], "sample.answers", "write 2 or more"),
    ],
)
def test_what_rollouts_need(write, valid, said, path, words):
    assert words in faults(write(valid), said)[path]


def test_held_out_rows_are_not_needed(write, valid):
    assert not faults(write(valid), [*GRPO, "data.eval=null"])


@pytest.mark.parametrize(
    ("unread", "why", "read"),
    [
        ([*GRPO, "sample.vllm={server: 'http://a:1'}"], "the engine is hf", SERVED),
        ([*GRPO, "sample.vllm={memory: 0.5}"], "the engine is hf", VLLM),
        ([*SERVED, "sample.vllm.memory=0.5"], "by ftkit serve", [*VLLM, "sample.vllm.memory=0.5"]),
        ([*SERVED, "sample.vllm.sleep=false"], "by ftkit", [*VLLM, "sample.vllm.sleep=false"]),
        ([*SEVERAL, "sample.vllm.eager=true"], "by ftkit", [*VLLM, "sample.vllm.eager=true"]),
        ([*VLLM, "sample.vllm.exchange=/w"], "without", [*SERVED, "sample.vllm.exchange=/w"]),
        ([*VLLM, "sample.vllm.wait=9"], "without a server", [*SEVERAL, "sample.vllm.wait=9"]),
    ],
)
def test_what_is_said_of_vllm_and_not_read(write, valid, unread, why, read):
    ((path, fault),) = faults(write(valid), unread).items()
    assert path.startswith("sample.vllm")
    assert "would not be read: " in fault
    assert why in fault
    assert not faults("r.yaml", read)


@pytest.mark.parametrize("said", [VLLM, SERVED])
def test_the_tolerance_is_read_wherever_vllm_runs(write, valid, said):
    assert not faults(write(valid), [*said, "sample.vllm.tolerance=0.5"])


@pytest.mark.parametrize("said", [GRPO, VLLM, SERVED])
def test_a_resolved_recipe_can_be_read_again(write, valid, said):
    """Defaults of a section that is there would be refused if they were written down."""
    first = load_recipe(write(valid), said)
    write(dump_yaml(first.resolved()), "again.yaml")
    assert load_recipe("again.yaml").recipe == first.recipe
