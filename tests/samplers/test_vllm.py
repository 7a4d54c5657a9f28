from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from ftkit.core.errors import RunError, UserError
from ftkit.model.adapters import with_adapters
from ftkit.model.config import LoraConfig, ModelConfig
from ftkit.model.policy import Policy
from ftkit.samplers.base import awake
from ftkit.samplers.config import SampleConfig, VLLMConfig
from ftkit.samplers.vllm import weights as of_weights
from ftkit.samplers.vllm.sampler import VLLMSampler
from ftkit.samplers.vllm.weights import present_weights, write_weights
from tests.samplers.pretend import Pretend, Words
from tests.tiny import tiny_model

STOP = 2
PROMPTS = [(5, 9, 4), (7,), (3, 3, 8, 12, 20, 1, 4), (11, 6)]


def policy_of(model):
    return Policy(model, Words(), 4096)


def sampler_of(policy, engine, **config):
    return VLLMSampler(engine, policy, SampleConfig(**{"max_tokens": 6, **config}), (STOP,))


@pytest.fixture
def policy():
    return policy_of(tiny_model(max_position_embeddings=16))


@pytest.fixture
def engine(policy):
    return Pretend(policy.model)


@torch.no_grad()
def change(policy, by=0.05):
    for weight in policy.model.parameters():
        weight.add_(by * torch.randn_like(weight))
    policy.version += 1


def test_weights_are_handed_over_when_they_have_changed_and_only_then(policy, engine):
    sampler = sampler_of(policy, engine)
    for _ in range(2):
        for _ in range(2):
            with awake(sampler):
                sampler.generate(PROMPTS, answers=2, seed=0)
        change(policy)
    assert engine.calls.count("load") == 2
    assert engine.calls[:3] == ["wake", "load", "ask"]  # the probe
    assert engine.calls[-1] == "sleep"


def test_log_probabilities_are_those_of_the_policy(policy, engine):
    sampler = sampler_of(policy, engine, temperature=0.6)
    sampler.sync()
    for prompt, answers in zip(PROMPTS, sampler.generate(PROMPTS, answers=3, seed=0), strict=True):
        for answer in answers:
            tokens = torch.tensor([[*prompt, *answer.tokens]])
            logits = policy.model(tokens).logits[0, len(prompt) - 1 : -1] / 0.6
            own = logits.log_softmax(-1).gather(1, tokens[0, len(prompt) :, None])[:, 0]
            assert torch.allclose(own, torch.tensor(answer.logp), atol=1e-5)


@pytest.mark.parametrize("spoil", [1e-2, 1.0])
def test_weights_that_did_not_arrive_stop_the_run(policy, spoil):
    sampler = sampler_of(policy, Pretend(policy.model, spoil))
    with pytest.raises(RunError, match="does not have the policy's weights"):
        sampler.sync()


def test_the_tolerance_is_the_recipes(policy):
    wide = VLLMConfig(tolerance=10.0)
    sampler_of(policy, Pretend(policy.model, 1e-2), vllm=wide).sync()


def test_a_prompts_draws_depend_on_its_key_and_the_seed_alone(policy, engine):
    sampler = sampler_of(policy, engine)
    sampler.sync()
    keys = [4, 8, 15, 16]
    once = sampler.generate(PROMPTS, answers=2, seed=3, keys=keys)
    back = sampler.generate(PROMPTS[::-1], answers=2, seed=3, keys=keys[::-1])
    assert once == back[::-1]
    seeds = [request.seed for request in engine.said[-8:]]
    assert len(set(seeds)) == 4
    sampler.generate(PROMPTS, answers=2, seed=4, keys=keys)
    assert not {request.seed for request in engine.said[-4:]} & set(seeds)


def test_greedy_answers_are_asked_for_once_and_are_certain(policy, engine):
    sampler = sampler_of(policy, engine, temperature=0.0)
    sampler.sync()
    found = sampler.generate(PROMPTS, answers=3, seed=0)
    assert all(request.answers == 1 for request in engine.said[1:])
    for answers in found:
        assert len(answers) == 3
        assert answers[0] == answers[1] == answers[2]
        assert set(answers[0].logp) == {0.0}


def test_an_answer_has_the_room_that_positions_leave(policy, engine):
    sampler = sampler_of(policy, engine, max_tokens=12)
    sampler.sync()
    sampler.generate([(1,) * 10], answers=1, seed=0)
    assert engine.said[-1].max_tokens == 6
    with pytest.raises(UserError, match="fills all 16 positions"):
        sampler.generate([(1,) * 16], answers=1, seed=0)


def test_an_answer_that_something_else_ended_is_refused(policy, engine):
    sampler = sampler_of(policy, engine)
    sampler.sync()
    whole = engine.ask

    def short(requests, config, stop):
        found = whole(requests, config, stop)
        return [[one._replace(tokens=[7], logp=[-1.0]) for one in row] for row in found]

    engine.ask = short
    with pytest.raises(RunError, match="after 1 of 6 tokens"):
        sampler.generate(PROMPTS, answers=1, seed=0)


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gpt2"])
def test_weights_have_the_names_that_checkpoints_have(architecture, tmp_path):
    model = tiny_model(architecture)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    found = present_weights(policy_of(model))
    assert set(found) == set(saved)
    assert all(torch.equal(found[name], saved[name]) for name in saved)


def test_adapters_are_added_and_the_weights_stay(tmp_path):
    model = with_adapters(
        tiny_model(), ModelConfig(path="x", lora=LoraConfig(r=2, alpha=3)), "CAUSAL_LM"
    )
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data.normal_()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = present_weights(policy_of(model))
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    model.merge_and_unload().save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert set(found) == set(saved)
    assert all(torch.allclose(found[name], saved[name], atol=1e-6) for name in saved)


def test_what_is_written_is_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr(of_weights, "SHARD", 4096)
    weights = present_weights(policy_of(tiny_model()))
    write_weights(weights, tmp_path / "w")
    files = sorted((tmp_path / "w").glob("*.safetensors"))
    assert len(files) > 1
    read = {name: value for file in files for name, value in load_file(file).items()}
    assert set(read) == set(weights)
    assert all(torch.equal(read[name], value) for name, value in weights.items())


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "w").write_text("")
    with pytest.raises(RunError, match=r"cannot be written.*sample\.vllm\.exchange"):
        write_weights({}, tmp_path / "w" / "1")
