"""Before a rollout: truths that verifiers are tried on, and the reference that does not move."""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ftkit.core.batch import collate
from ftkit.core.errors import UserError
from ftkit.core.group import Answer, Group
from ftkit.model.config import LoraConfig, ModelConfig
from ftkit.model.load import load_policy
from ftkit.model.tokenizer import train_tokenizer
from ftkit.objectives import GRPO
from ftkit.parallel.config import ParallelConfig
from ftkit.parallel.world import OneProcess
from ftkit.run_rollouts import GOLDS, Asked, _reference, check_truths
from ftkit.verifiers.config import ExactConfig, LengthConfig, NumericConfig, PythonConfig
from ftkit.verifiers.judge import build_judge
from tests.tiny import SIZES, random_groups

NUMERIC = NumericConfig(name="numeric")
LENGTH = LengthConfig(name="length", soft=1, hard=4)
T = 0.7


def rows(n, truth="1"):
    return [Group(str(i), (i,), (), f"What is {i}?", truth, f"mine:{i + 1}") for i in range(n)]


def asked(groups):
    return Asked(groups, None, ())


def odd(n, bad):
    """Rows of which the first have a truth that is no number."""
    return [replace(row, truth="one") if i < bad else row for i, row in enumerate(rows(n))]


def test_rows_without_truth_are_counted_and_named():
    lacking = rows(7)
    lacking[4] = replace(lacking[4], truth=None)
    lacking[6] = replace(lacking[6], truth=None)
    with pytest.raises(UserError) as caught:
        check_truths([asked(rows(3)), asked(lacking)], build_judge(NUMERIC))
    (fault,) = caught.value.faults
    assert fault.place == "data.train"
    assert fault.found.startswith("2 of the first 10 rows have no truth")
    assert "'What is 4?' (mine:5)" in fault.found
    assert "columns:" in fault.remedy


def test_a_demonstration_is_a_truth():
    class Letters:
        def decode(self, row, **_):
            return "".join(map(str, row))

    given = [replace(row, truth=None, answers=(Answer((4, 2, 0)),)) for row in rows(3)]
    sets = Asked(given, Letters(), (0,))
    assert sets[0].truth == "42"
    check_truths([sets], build_judge(NUMERIC))


@pytest.mark.parametrize(
    ("n", "bad", "words"), [(40, 0, None), (40, 2, "2 of 40"), (20, 1, "'one")]
)
def test_a_verifier_that_fails_on_few_truths_is_told_of(caplog, n, bad, words):
    """5 % are let pass: not more."""
    with caplog.at_level(logging.WARNING, "ftkit"):
        check_truths([asked(odd(n, bad))], build_judge(NUMERIC))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (words is not None)
    assert not said or words in said[0]


@pytest.mark.parametrize(("n", "bad"), [(40, 3), (19, 1), (1, 1)])
def test_a_verifier_that_fails_on_truths_is_refused(n, bad):
    with pytest.raises(UserError, match=rf"verify: {bad} of {n} trials are judged wrongly.*'one'"):
        check_truths([asked(odd(n, bad))], build_judge(NUMERIC))


def test_the_first_truths_of_each_set_are_tried_and_no_more():
    longer = rows(GOLDS) + odd(9, 9)
    check_truths([asked(longer)], build_judge(NUMERIC))
    check_truths([asked(longer), asked(longer)], build_judge(NUMERIC))
    with pytest.raises(UserError, match=f"9 of {GOLDS + 9} trials"):
        check_truths([asked(longer), asked(odd(9, 9))], build_judge(NUMERIC))


def test_a_function_is_tried_on_gold_answers_where_their_form_is_said(tmp_path):
    (tmp_path / "judge.py").write_text("def never(answer, truth, **_): return 0.0")
    function = f"{tmp_path / 'judge.py'}:never"
    with closing(build_judge(PythonConfig(name="python", function=function))) as judge:
        check_truths([asked(rows(3))], judge)
    said = PythonConfig(name="python", function=function, gold="= {truth}")
    with closing(build_judge(said)) as judge, pytest.raises(UserError, match="3 of 3 trials"):
        check_truths([asked(rows(3))], judge)


def test_verifiers_that_compare_with_nothing_are_not_asked_for_truths():
    class Unread:
        def __len__(self):
            return 3

        def __getitem__(self, row):
            raise AssertionError(row)

    check_truths([asked(Unread())], build_judge(LENGTH))
    exact = ExactConfig(name="exact")
    with pytest.raises(UserError, match="3 of the first 3 rows have no truth"):
        check_truths([asked(rows(3, truth=None))], build_judge([LENGTH, exact]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model's folder."""
    at = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(["1+2=3"], 270)
    tokenizer.save_pretrained(at)
    init = {"architecture": "qwen2", **SIZES["qwen2"]}
    config = ModelConfig(init=init, tokenizer=str(at))
    load_policy(config, tokenizer, micro_tokens=64).model.save_pretrained(at)
    return at, tokenizer


BATCH = collate(random_groups(3))


@torch.no_grad()
def move(policy, only=""):
    torch.manual_seed(1)
    for name, weight in policy.model.named_parameters():
        if only in name and weight.requires_grad:
            weight.add_(0.3 * torch.randn_like(weight))


def built(folder, **values):
    at, tokenizer = folder
    config = ModelConfig(path=str(at), **values)
    policy = load_policy(config, tokenizer, micro_tokens=64)
    method = GRPO(name="grpo", beta=0.1)
    recipe = SimpleNamespace(model=config, method=method, parallel=ParallelConfig())
    return policy, _reference(recipe, policy, OneProcess())


@pytest.mark.parametrize("lora", [None, LoraConfig(r=2)])
def test_the_reference_stays_where_the_policy_began(folder, lora):
    policy, reference = built(folder, lora=lora)
    at, tokenizer = folder
    initial = load_policy(ModelConfig(path=str(at)), tokenizer, micro_tokens=64)
    learnt = {name for name, weight in policy.model.named_parameters() if weight.requires_grad}
    with policy.at(T), initial.at(T):
        before = initial.without_graph(BATCH)
        for _ in range(2):
            assert torch.allclose(reference(BATCH), before, atol=1e-6)
            move(policy)
        assert (policy.without_graph(BATCH) - before).abs().max() > 0.1
        again = reference(BATCH)
    assert torch.allclose(again, before, atol=1e-6)
    named = policy.model.named_parameters()
    assert learnt == {name for name, weight in named if weight.requires_grad}
    assert bool(lora) == all("lora_" in name for name in learnt)


@pytest.mark.parametrize("lora", [None, LoraConfig(r=2)])
def test_the_reference_is_at_the_policys_temperature_of_the_moment(folder, lora):
    policy, reference = built(folder, lora=lora)
    for temperature in (T, 1.0, 2.0):
        with policy.at(temperature):
            assert torch.allclose(reference(BATCH), policy.without_graph(BATCH), atol=1e-6)
    assert (reference(BATCH) - policy.without_graph(BATCH)).abs().max() < 1e-6


def test_with_adapters_there_is_no_second_model(folder):
    policy, reference = built(folder, lora=LoraConfig(r=2))
    before = reference(BATCH)
    with torch.no_grad():  # nobody does this but here: it shows whose weights are read
        for name, weight in policy.model.named_parameters():
            if "lora_" not in name:
                weight.mul_(1.5)
    assert not torch.allclose(reference(BATCH), before, atol=1e-2)


def test_adapters_that_were_there_before_are_part_of_the_reference(folder, tmp_path):
    policy, _ = built(folder, lora=LoraConfig(r=2))
    move(policy)
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    further, reference = built((tmp_path, policy.tokenizer), lora=LoraConfig(r=2))
    before = policy.without_graph(BATCH)
    move(further)
    assert torch.allclose(reference(BATCH), before, atol=1e-6)
    assert not torch.allclose(further.without_graph(BATCH), before, atol=1e-2)
