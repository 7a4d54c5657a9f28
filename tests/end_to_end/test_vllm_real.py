"""The real vLLM, in this process and as a server (``make test-vllm``)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from ftkit.core.batch import collate
from ftkit.core.errors import RunError
from ftkit.core.group import Group
from ftkit.model.config import LoraConfig, ModelConfig
from ftkit.model.load import load_policy
from ftkit.model.tokenizer import load_tokenizer
from ftkit.samplers.config import SampleConfig, VLLMConfig
from ftkit.samplers.hf import HFSampler
from ftkit.samplers.vllm.inside import Inside
from ftkit.samplers.vllm.sampler import VLLMSampler
from ftkit.samplers.vllm.weights import present_weights
from tests.end_to_end.conftest import lines

pytestmark = pytest.mark.vllm

AGREEMENT = 1e-4
"""By how much the log-probability of a token may differ between sampler and trainer, in nats."""
SIZES = {
    "architecture": "qwen2",
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 192,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
LINES = 8


@pytest.fixture(scope="module")
def policy(files):
    """A random model whose next token is far from uniform."""
    config = ModelConfig(init=SIZES, tokenizer=str(files / "tokenizer"))
    found = load_policy(config, load_tokenizer(config), micro_tokens=4096, seed=0)
    with torch.no_grad():
        for weight in found.model.parameters():
            weight.mul_(3)
    return found


@pytest.fixture(scope="module")
def engine(policy):
    states = torch.random.get_rng_state(), torch.get_num_threads(), torch.set_num_threads
    engine = Inside.start(policy, VLLMConfig(), 32)
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert torch.get_num_threads() == states[1]
    assert torch.set_num_threads is states[2]
    yield engine
    engine.close()


@pytest.fixture
def prompts(policy):
    return [policy.tokenizer(f"{a}+{b}=").input_ids for a in range(4) for b in range(5)]


@torch.no_grad()
def change(policy, seed):
    torch.manual_seed(seed)
    for weight in policy.model.parameters():
        weight.add_(0.02 * torch.randn_like(weight))
    policy.version += 1


def agrees(policy, engine, prompts, temperature):
    """Sampled and greedy answers are those of the policy."""
    stop = (0,)
    config = SampleConfig(temperature=temperature, max_tokens=8)
    sampler = VLLMSampler(engine, policy, config, stop)
    sampler.sync()
    found = sampler.generate(prompts, answers=4, seed=1)
    assert found == sampler.generate(prompts, answers=4, seed=1)
    assert len({answer.tokens for answers in found for answer in answers}) > len(prompts)
    groups = [
        Group(str(i), tuple(prompt), tuple(answers))
        for i, (prompt, answers) in enumerate(zip(prompts, found, strict=True))
    ]
    with policy.at(temperature):
        own = policy.without_graph(collate(groups))
    for b, answers in enumerate(found):
        for k, answer in enumerate(answers):
            told = torch.tensor(answer.logp)
            assert torch.allclose(own[b, k, : len(told)], told, atol=AGREEMENT)
    greedy = config.model_copy(update={"temperature": 0.0})
    one = VLLMSampler(engine, policy, greedy, stop).generate(prompts, answers=1, seed=0)
    other = HFSampler(policy.model, policy.tokenizer, greedy, stop).generate(
        prompts, answers=1, seed=0
    )
    assert [a[0].tokens for a in one] == [a[0].tokens for a in other]


def test_what_a_plain_reload_leaves_behind_is_noticed_and_put_right(policy, engine, prompts):
    """On CPUs a head that is tied to embeddings goes on multiplying by a packed copy of them."""
    assert engine.version is None  # the first test: after it vLLM has no such copies
    weights = present_weights(policy)
    engine.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights.items()})
    with pytest.raises(RunError, match="does not have the policy's weights"):
        VLLMSampler(engine, policy, SampleConfig(), (0,))._compare()
    agrees(policy, engine, prompts, 1.0)


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_weights_arrive_time_and_again(policy, engine, prompts, temperature):
    first = {name: value.clone() for name, value in policy.model.state_dict().items()}
    for turn in range(4):
        agrees(policy, engine, prompts, temperature)
        if turn % 2:
            policy.model.load_state_dict(first)
            policy.version += 1
        else:
            change(policy, turn)


def test_adapters_are_handed_over_with_the_rest(policy, engine, prompts, tmp_path):
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    config = ModelConfig(path=str(tmp_path), lora=LoraConfig(r=4))
    adapted = load_policy(config, policy.tokenizer, micro_tokens=4096)
    torch.manual_seed(3)
    for name, weight in adapted.model.named_parameters():
        if "lora_" in name:
            weight.data.normal_(std=0.03)
    adapted.version = 100
    agrees(adapted, engine, prompts, 1.0)


def ftkit(*arguments, **options):
    command = [sys.executable, "-m", "ftkit", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


@pytest.fixture
def online(recipe, files):
    def make(name, **vllm):
        model = {"init": SIZES, "tokenizer": str(files / "tokenizer")}
        sample = {"engine": "vllm", "answers": 4, "max_tokens": 4, "temperature": 1.0}
        if vllm:
            sample["vllm"] = vllm
        return recipe(
            name,
            model=model,
            method={"name": "grpo"},
            train={"prompts": 4, "steps": 6, "updates": 2, "lr": 1e-3},
            sample=sample,
            verify={"name": "exact"},
        )

    return make


def ended(process, seconds=300):
    out, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, out[-3000:]
    return out


def looks_right(folder: Path, steps: int = 6) -> None:
    rows = lines(folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    gaps = [row["sampler_gap"] for row in rows if "sampler_gap" in row]
    assert len(gaps) == steps // 2
    assert max(gaps) < AGREEMENT
    rolled = [row for row in lines(folder / "samples.jsonl") if row["decoding"] == "rollout"]
    assert {row["version"] for row in rolled} == set(range(0, steps, 2))


def test_a_run_with_vllm_inside(online, tmp_path):
    ended(ftkit("grpo", online("inside")))
    looks_right(tmp_path / "inside")


def test_negatives_by_vllm(recipe, files, tmp_path):
    path = recipe(
        "dft",
        model={"init": SIZES, "tokenizer": str(files / "tokenizer")},
        method={"name": "dft"},
        data={"pool": str(tmp_path / "pool")},
        sample={"engine": "vllm", "answers": 2, "max_tokens": 4, "system": ["Be brief."]},
    )
    ended(ftkit("gen-negatives", path))
    about = json.loads((tmp_path / "pool" / "pool.json").read_text())
    assert about["sample"]["engine"] == "vllm"
    ended(ftkit("dft", path))


@contextmanager
def server(path, port):
    process = ftkit("serve", path, "--port", port, start_new_session=True)
    try:
        for _ in range(240):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, process.stdout.read()[-3000:]
            time.sleep(0.5)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def children(pid):
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    own = [int(each) for each in found.stdout.split()]
    return [*own, *(below for each in own for below in children(each))]


def test_a_server_serves_a_run_and_may_die_meanwhile(online, tmp_path):
    port = free_port()
    path = online("outside", server=f"http://127.0.0.1:{port}", wait=240.0)
    with server(path, port) as first:
        run = ftkit("grpo", path, "train.steps=60")
        deadline = time.monotonic() + 120
        metrics = tmp_path / "outside" / "metrics.jsonl"
        while not (metrics.is_file() and len(metrics.read_text().splitlines()) > LINES):
            assert run.poll() is None, run.stdout.read()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for pid in children(first.pid):
            os.kill(pid, signal.SIGKILL)
        first.wait(timeout=30)
    assert run.poll() is None
    with server(path, port):
        told = ended(run)
    assert "waiting up to 240 s" in told
    looks_right(tmp_path / "outside", 60)
    assert not (tmp_path / ".outside-weights").exists()
