from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

from ftkit.core.errors import UserError
from ftkit.samplers.config import SampleConfig
from ftkit.samplers.hf import HFSampler

VOCABULARY = 23
STOP = 2
PROMPTS = [[5, 9, 4], [7], [3, 3, 8, 12, 20, 1, 4], [5, 9, 4], [11, 6]]
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES = {**SHAPE, "intermediate_size": 48, "vocab_size": VOCABULARY, "max_position_embeddings": 64}
# eos is None: what generate() does at an EOS is compared by hand
CONFIGS = {
    "qwen2": Qwen2Config(**SIZES, num_key_value_heads=2, eos_token_id=None),
    "llama": LlamaConfig(**SIZES, num_key_value_heads=4, eos_token_id=None, bos_token_id=None),
    "mistral": MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=4, eos_token_id=None),
    "gpt2": GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=VOCABULARY, n_positions=64, eos_token_id=None
    ),
}


class Letters:
    """A tokenizer: token i is the i-th letter; token 2 is special."""

    def batch_decode(self, rows, *, skip_special_tokens, clean_up_tokenization_spaces):
        assert skip_special_tokens
        assert not clean_up_tokenization_spaces
        return ["".join(chr(97 + token) for token in row if token != STOP) for row in rows]


def build(architecture="qwen2", attention="sdpa", scale=30.0):
    """A random model whose next token is far from uniform."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        CONFIGS[architecture], attn_implementation=attention, dtype=torch.float32
    )
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(scale)
    return model


def sampler(model, stop=(STOP,), rows=512, **config):
    return HFSampler(model, Letters(), SampleConfig(**{"max_tokens": 12, **config}), stop, rows)


def conditional(model, prompt, answer, temperature=1.0):
    """log softmax(logits / T) of each answer token by one forward pass over everything."""
    ids = torch.tensor([[*prompt, *answer]])
    with torch.no_grad():
        logits = model.eval()(ids).logits[0].double() / temperature
    return logits.log_softmax(-1)[len(prompt) - 1 : -1]


@pytest.mark.parametrize("attention", ["sdpa", "eager", "ftkit_segments"])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_greedy_is_generate(architecture, attention):
    from ftkit.model.attention import register

    register()
    model = build(architecture, attention)
    found = sampler(model, temperature=0.0, stop=[]).generate(PROMPTS, answers=1, seed=0)
    model.eval()
    greedy = GenerationConfig(do_sample=False, max_new_tokens=12, pad_token_id=0)
    for prompt, (answer,) in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([prompt])
        expected = model.generate(
            ids, attention_mask=torch.ones_like(ids), generation_config=greedy
        )
        assert list(answer.tokens) == expected[0, len(prompt) :].tolist()
        assert answer.finish == "length"
        assert answer.logp == (0.0,) * 12  # the greedy policy is sure


@pytest.mark.parametrize("temperature", [0.6, 1.0])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_log_probabilities_are_those_of_a_full_forward_pass(architecture, temperature):
    model = build(architecture)
    found = sampler(model, temperature=temperature).generate(PROMPTS, answers=3, seed=1)
    for prompt, answers in zip(PROMPTS, found, strict=True):
        for answer in answers:
            expected = conditional(model, prompt, answer.tokens, temperature)
            expected = expected.gather(1, torch.tensor(answer.tokens)[:, None]).squeeze(1)
            assert torch.allclose(torch.tensor(answer.logp).double(), expected, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"top_k": 5}, {"top_p": 0.7}, {"top_k": 9, "top_p": 0.8}])
def test_frequencies_are_the_distribution(options):
    """Chi-square of the first token against the model's own, at a fixed seed."""
    model = build(scale=10.0)
    prompt, n = [5, 9], 6000
    found = sampler(model, max_tokens=1, **options).generate([prompt], answers=n, seed=2)[0]
    p = conditional(model, prompt, [0])[0].exp()
    p = by_hand(p, options.get("top_k", VOCABULARY), options.get("top_p", 1.0))
    drawn = torch.bincount(torch.tensor([a.tokens[0] for a in found]), minlength=VOCABULARY)
    assert not drawn[p == 0].any()
    for answer in found[:50]:
        assert answer.logp[0] == pytest.approx(math.log(p[answer.tokens[0]]), abs=1e-5)
    likely = p * n >= 5
    chi = ((drawn - p * n)[likely] ** 2 / (p * n)[likely]).sum().item()
    free = int(likely.sum()) - 1
    assert free >= 2
    assert chi < free + 4 * math.sqrt(2 * free)  # mean + 4 standard deviations


def by_hand(p, top_k, top_p):
    """The kept set, token by token from the likeliest on, and its share."""
    keep = torch.zeros_like(p)
    order = p.argsort(descending=True).tolist()[:top_k]
    total, before = p[order].sum(), 0.0
    for token in order:
        if before >= top_p:
            break
        keep[token] = p[token]
        before += (p[token] / total).item()
    return keep / keep.sum()


def test_a_stop_token_ends_a_row_and_the_limit_cuts_it():
    model = build(scale=10.0)
    stop = [STOP, 7, 13]
    found = sampler(model, stop=stop, max_tokens=6).generate(PROMPTS, answers=8, seed=3)
    answers = [answer for row in found for answer in row]
    assert {answer.finish for answer in answers} == {"stop", "length"}
    for answer in answers:
        *before, last = answer.tokens
        assert not set(before) & set(stop)
        assert len(answer.tokens) == len(answer.logp) <= 6
        assert (answer.finish == "stop") == (last in stop)
        assert answer.finish == "stop" or len(answer.tokens) == 6
        spoken = before if answer.finish == "stop" else answer.tokens
        assert answer.text == "".join(chr(97 + token) for token in spoken)


def test_an_answer_does_not_depend_on_the_batch():
    """Not on other prompts, their order, how many go through at once, nor other answers."""
    model = build(scale=10.0)
    keys = [10, 11, 12, 13, 14]
    whole = sampler(model).generate(PROMPTS, answers=4, seed=4, keys=keys)
    narrow = sampler(model, rows=4).generate(PROMPTS, answers=4, seed=4, keys=keys)
    reverse = sampler(model).generate(PROMPTS[::-1], answers=4, seed=4, keys=keys[::-1])[::-1]
    alone = [
        sampler(model).generate([prompt], answers=2, seed=4, keys=[key])[0]
        for prompt, key in zip(PROMPTS, keys, strict=True)
    ]
    longer = sampler(model, max_tokens=20).generate(PROMPTS, answers=4, seed=4, keys=keys)
    for i, row in enumerate(whole):
        assert len({answer.tokens for answer in row}) > 1
        for other in (narrow[i], reverse[i], alone[i]):
            for answer, again in zip(row, other, strict=False):
                assert again.tokens == answer.tokens
                assert again.logp == pytest.approx(answer.logp, abs=1e-5)
        for answer, more in zip(row, longer[i], strict=True):
            assert more.tokens[: len(answer.tokens)] == answer.tokens
    assert [a.tokens for a in whole[0]] != [a.tokens for a in whole[3]]  # same prompt, other key
    other = sampler(model).generate(PROMPTS, answers=4, seed=5, keys=keys)
    assert [a.tokens for a in whole[0]] != [a.tokens for a in other[0]]


def test_each_prompt_is_read_once_and_rows_that_ended_are_not_fed():
    model = build(scale=10.0)
    fed = []
    model.register_forward_pre_hook(
        lambda _, __, kwargs: fed.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    found = sampler(model, stop=[STOP, 7, 13]).generate(PROMPTS, answers=6, seed=6)
    assert fed[0] == (5, 7)
    lengths = [len(answer.tokens) for row in found for answer in row]
    assert fed[1:] == [(sum(n > t for n in lengths), 1) for t in range(1, max(lengths))]


@pytest.mark.parametrize(
    ("budget", "read"),
    [
        ({}, [(5, 7)]),
        ({"rows": 4}, [(2, 2), (2, 3), (1, 7)]),  # two answers each, sorted by length
        ({"rows": 1}, [(1, 1), (1, 2), (1, 3), (1, 3), (1, 7)]),  # one prompt at least
        ({"cache_tokens": 6 * 15}, [(3, 3), (2, 7)]),  # 6 rows of 3 + 12 tokens; 4 of 7 + 12
    ],
)
def test_batches_keep_within_their_budgets(budget, read):
    model = build()
    fed = []
    model.register_forward_pre_hook(
        lambda _, __, kwargs: fed.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    replace(sampler(model, stop=[]), **budget).generate(PROMPTS, answers=2, seed=0)
    assert fed[:: len(fed) // len(read)] == read


def test_a_stream_is_the_first_answer():
    model = build(scale=10.0)
    (answer,) = sampler(model).generate([PROMPTS[0]], answers=1, seed=7)[0]
    assert tuple(sampler(model).stream(PROMPTS[0], seed=7)) == answer.tokens


def test_modes_come_back_and_nothing_is_recorded():
    model = build()
    model.train()
    model.model.layers[1].eval()
    before = [module.training for module in model.modules()]
    stream = sampler(model).stream(PROMPTS[0], seed=0)
    next(stream)
    assert not model.training
    stream.close()
    assert [module.training for module in model.modules()] == before
    assert torch.is_grad_enabled()


def test_adapters_are_sampled():
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(build(), config)
    (answer,) = sampler(model).generate([PROMPTS[0]], answers=1, seed=0)[0]
    expected = conditional(model, PROMPTS[0], answer.tokens)
    expected = expected.gather(1, torch.tensor(answer.tokens)[:, None]).squeeze(1)
    assert torch.allclose(torch.tensor(answer.logp).double(), expected, atol=1e-5)


def test_positions_are_a_length_limit():
    model = build("gpt2")
    prompts = [[3] * 60, [3] * 5]
    long, short = sampler(model, stop=[]).generate(prompts, answers=1, seed=0)
    assert (len(long[0].tokens), long[0].finish) == (4, "length")
    assert len(short[0].tokens) == 12
    with pytest.raises(UserError, match="64 tokens fills all 64 positions"):
        sampler(model).generate([[3] * 64], answers=1, seed=0)


def test_no_prompts_no_answers():
    assert sampler(build()).generate([], answers=2, seed=0) == []
