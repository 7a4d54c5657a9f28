from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from ftkit.core.group import Answer, Group, content_id
from ftkit.core.intervals import wilson
from ftkit.model.policy import Policy
from ftkit.samplers.config import SampleConfig
from ftkit.samplers.hf import HFSampler
from ftkit.train.evaluation import evaluate
from ftkit.verifiers.config import ExactConfig
from ftkit.verifiers.judge import build_judge

STOP, VOCABULARY = 2, 15
EXACT = build_judge(ExactConfig(name="exact"))


class Letters:
    def decode(self, row, **_):
        return "".join(chr(97 + token) for token in row if token != STOP)

    def batch_decode(self, rows, **_):
        return [self.decode(row) for row in rows]


@pytest.fixture(scope="module")
def policy():
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=24,
        vocab_size=VOCABULARY,
    )
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(30)
    return Policy(model, Letters(), micro_tokens=40, way="rows")


def group(prompt, answer, truth=None):
    given = Answer((*answer, STOP))
    return Group(content_id(prompt, answer), tuple(prompt), (given,), "?", truth)


@pytest.fixture(scope="module")
def rows(policy):
    """Twelve prompts; the truth of every other one is what the policy greedily says."""
    prompts = [[3 + i % 7, 4, 5 + i % 5][: 1 + i % 3] for i in range(12)]
    greedy = SampleConfig(temperature=0.0, max_tokens=2)
    said = HFSampler(policy.model, Letters(), greedy, [STOP]).generate(prompts, answers=1, seed=0)
    truths = [row[0].text if i % 2 else "never" for i, row in enumerate(said)]
    return [
        group(prompt, [7, 8, 9, 10][: 1 + i % 4], truth)
        for i, (prompt, truth) in enumerate(zip(prompts, truths, strict=True))
    ]


def test_the_loss_is_the_mean_over_all_trained_tokens(policy, rows):
    """By hand, a row at a time; not a mean of rows, nor of micro-batches (PITFALLS 19)."""
    total, count = 0.0, 0
    for row in rows:
        answer = row.answers[0].tokens
        with torch.no_grad():
            logits = policy.model(torch.tensor([[*row.prompt, *answer]])).logits[0].double()
        logp = logits.log_softmax(-1)[len(row.prompt) - 1 : -1]
        total -= logp.gather(1, torch.tensor(answer)[:, None]).sum().item()
        count += len(answer)
    found = evaluate(policy, rows)
    assert (found.n, found.tokens) == (12, count)
    loss, perplexity = found.figures["loss"], found.figures["perplexity"]
    assert loss.value == pytest.approx(total / count, abs=1e-6)
    assert loss.low < loss.value < loss.high
    assert perplexity.value == pytest.approx(math.exp(total / count), rel=1e-5)
    assert perplexity.low == pytest.approx(math.exp(loss.low))
    assert set(found.to_json()) == {"n", "tokens", "loss", "perplexity"}
    assert sum(row["nll"] for row in found.rows) == pytest.approx(total, abs=1e-5)


def test_only_learnt_tokens_count(policy):
    part = Group("x", (3, 4), (Answer((5, 6, 7, 8), learn=((2, 3),)),))
    with torch.no_grad():
        logits = policy.model(torch.tensor([[3, 4, 5, 6, 7, 8]])).logits[0]
    found = evaluate(policy, [part])
    assert found.tokens == 1
    expected = -logits.log_softmax(-1)[3, 7].item()
    assert found.figures["loss"].value == pytest.approx(expected, abs=1e-6)


def test_exact_match_is_the_share_of_greedy_answers_that_are_the_truth(policy, rows):
    found = evaluate(
        policy, rows, judge=EXACT, stop=[STOP], sample=SampleConfig(temperature=0.0, max_tokens=2)
    )
    exact, expected = found.figures["exact_match"], wilson(6, 12)
    assert (exact.value, exact.low, exact.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert found.verdicts["verdicts"]["correct"] == 6
    assert sum(found.verdicts["verdicts"].values()) == 12
    assert "exact_match_sampled" not in found.figures
    assert [row["greedy"][0]["status"] == "correct" for row in found.rows] == [False, True] * 6


def test_sampled_answers_are_counted_by_prompt(policy, rows):
    sample = SampleConfig(temperature=1.0, answers=20, max_tokens=2)
    found = evaluate(policy, rows, judge=EXACT, stop=[STOP], sample=sample, seed=1)
    written = HFSampler(policy.model, Letters(), sample, [STOP]).generate(
        [row.prompt for row in rows], answers=20, seed=1
    )
    pairs = [(a, row.truth) for row, answers in zip(rows, written, strict=True) for a in answers]
    figures = {name: figure.value for name, figure in found.figures.items()}
    share = sum(a.text == truth for a, truth in pairs) / 240
    assert 0 < share < 1
    assert figures["exact_match_sampled"] == pytest.approx(share)
    assert figures["length_sampled"] == pytest.approx(sum(len(a.tokens) for a, _ in pairs) / 240)
    cut = sum(a.finish == "length" for a, _ in pairs) / 240
    assert 0 < cut < 1
    assert figures["truncated_sampled"] == pytest.approx(cut)
    assert sum(found.verdicts["verdicts_sampled"].values()) == 240
    samples = [line for line in found.samples if line["decoding"] == "sampled"]
    assert len(samples) == 12
    for line, row in zip(samples, rows, strict=True):
        assert [a["reward"] for a in line["answers"]] == [
            float(a["text"] == row.truth) for a in line["answers"]
        ]
        read = Group.from_json({key: line[key] for key in line if key != "decoding"})
        assert read.id == row.id


def test_without_a_truth_the_demonstration_is_it(policy):
    greedy, prompt = SampleConfig(temperature=0.0, max_tokens=5), [9, 4]
    sampler = HFSampler(policy.model, Letters(), greedy, [STOP])
    (answer,) = sampler.generate([prompt], answers=1, seed=0)[0]
    assert len(answer.text) == 5
    found = evaluate(
        policy, [group(prompt, answer.tokens)], judge=EXACT, sample=greedy, stop=[STOP]
    )
    assert found.figures["exact_match"].value == 1
    assert found.rows[0]["truth"] == answer.text


def test_the_truth_of_a_conversation_is_its_first_answer(policy):
    """Later turns answer other prompts: 7 8 STOP, then what the user says, then 9 STOP."""
    given = Answer((7, 8, STOP, 4, 5, 9, STOP), learn=((0, 3), (5, 7)))
    found = evaluate(policy, [Group("a", (9, 4), (given,))], judge=EXACT, stop=[STOP])
    assert found.rows[0]["truth"] == Letters().decode([7, 8])


def test_the_same_rows_and_draws_each_time_and_more_with_a_larger_limit(policy, rows):
    sample = SampleConfig(answers=2, max_tokens=4)

    def measure(limit, seed=3):
        return evaluate(
            policy, rows, limit=limit, judge=EXACT, stop=[STOP], sample=sample, seed=seed
        )

    few, again, more = measure(5), measure(5), measure(8)
    assert few == again
    assert few.n == 5
    ids = {row["id"] for row in few.rows}
    assert ids < {row["id"] for row in more.rows}
    assert {row["id"] for row in measure(5, seed=4).rows} != ids
    of_more = {row["id"]: row["sampled"] for row in more.rows}
    assert all(of_more[row["id"]] == row["sampled"] for row in few.rows)


def test_everything_is_json(policy, rows):
    found = evaluate(policy, rows, judge=EXACT, stop=[STOP], sample=SampleConfig(max_tokens=4))
    for part in (found.to_json(), found.rows, found.samples):
        json.dumps(part, allow_nan=False)


def test_a_policy_that_finds_the_rows_impossible_is_reported_not_an_exception(rows):
    def without_graph(batch):
        return torch.full(batch.size, -1e4)

    found = evaluate(SimpleNamespace(without_graph=without_graph), rows).to_json()
    assert found["loss"]["value"] == pytest.approx(1e4)
    assert found["perplexity"] == {"value": None, "interval": None}
