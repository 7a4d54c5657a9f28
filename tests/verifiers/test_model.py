"""A reward model as judge: what its class says of the same tokens."""

from __future__ import annotations

import math

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from ftkit.core.errors import UserError
from ftkit.model.config import ModelConfig
from ftkit.model.load import load_policy, load_scorer
from ftkit.model.save import save_model
from ftkit.verifiers.base import Item
from ftkit.verifiers.config import LengthConfig, ModelJudgeConfig
from ftkit.verifiers.judge import build_judge
from tests.tiny import SIZES, VOCABULARY

QWEN = ModelConfig(init={"architecture": "qwen2", **SIZES["qwen2"]})
ITEMS = [
    Item("", "", prompt_tokens=prompt, tokens=tokens)
    for prompt, tokens in [
        ((3, 4, 5), (6, 7, 1)),
        ((8,), (9,)),
        ((3, 4, 5), (6, 7, 7, 7, 7, 1)),
        ((2, 2), (2, 2, 2)),  # the padding token is a token like any other
    ]
]


def words(order):
    names = {f"<{n}>" if n != 1 else "<|endoftext|>": at for at, n in enumerate(order)}
    tokenizer = Tokenizer(models.WordLevel(names, unk_token="<0>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<2>"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge") / "model"
    scorer = load_scorer(QWEN, words(range(VOCABULARY)), micro_tokens=99, seed=3)
    with torch.no_grad():
        scorer.model.score.weight.normal_(generator=torch.Generator().manual_seed(1))
    save_model(scorer, folder, [1])
    return folder


def test_the_reward_is_that_of_its_class_at_the_last_token(folder):
    own = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    own.config.pad_token_id = None
    expected = []
    with torch.no_grad():
        for item in ITEMS:
            tokens = torch.tensor([item.prompt_tokens + item.tokens])
            expected.append(own(input_ids=tokens).logits[0, 0].item())
    middle = sorted(expected)[1]
    config = ModelJudgeConfig(name="model", path=str(folder), threshold=middle - 1e-4, weight=2.0)
    with build_judge(config) as judge:
        verdicts = judge.judge(ITEMS)
    assert [verdict.reward for verdict in verdicts] == pytest.approx(
        [2 * each for each in expected]
    )
    right = [verdict.status == "correct" for verdict in verdicts]
    assert right == [each >= middle for each in expected]


def test_without_tokens_nothing_is_judged(folder):
    config = ModelJudgeConfig(name="model", path=str(folder))
    with build_judge([config, LengthConfig(name="length", soft=1, hard=9)]) as judge:
        known, unknown = judge.judge([ITEMS[0], Item("x", "", prompt_tokens=(1,))])
    assert (unknown.status, unknown.reward) == ("error", None)
    assert math.isfinite(known.reward)
    assert known.parts["length"] == -0.25


def test_the_policy_must_have_the_same_tokenizer(folder):
    same, other = (
        load_policy(QWEN, words(order), micro_tokens=9)
        for order in (range(VOCABULARY), (0, 1, 2, 4, 3, *range(5, VOCABULARY)))
    )
    config = ModelJudgeConfig(name="model", path=str(folder))
    with build_judge(config, policy=same) as judge:
        assert judge.judge(ITEMS[:1])[0].reward is not None
    with pytest.raises(UserError, match=r"verify\.path: the tokenizer of .* not the policy's"):
        build_judge(config, policy=other)


def test_a_folder_that_is_not_there_is_the_users_error(tmp_path):
    config = ModelJudgeConfig(name="model", path=str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"verify\.path: "):
        build_judge(config)
