from __future__ import annotations

import socket
import subprocess
import threading
import time

import pytest
import torch

from ftkit.core.errors import RunError, ServiceError, UserError
from ftkit.model.policy import Policy
from ftkit.parallel.world import OneProcess
from ftkit.samplers.config import SampleConfig
from ftkit.samplers.vllm.sampler import VLLMSampler
from ftkit.samplers.vllm.server import Servers
from tests.samplers import pretend
from tests.samplers.pretend import Pretend, PretendServer, RefusedError, Words
from tests.tiny import tiny_model

STOP = 2
PROMPTS = [(5, 9, 4), (7,), (3, 3, 8, 12, 20, 1, 4), (11, 6)]


@pytest.fixture
def policy():
    return Policy(tiny_model(max_position_embeddings=16), Words(), 4096)


@pytest.fixture
def start(policy):
    servers = []

    def start(**options):
        servers.append(PretendServer(policy.model, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def join(policy, tmp_path):
    def join(*urls, wait=0.0):
        engine = Servers.join(urls, tmp_path / "weights", wait, OneProcess(), 16)
        return VLLMSampler(engine, policy, SampleConfig(max_tokens=6), (STOP,))

    return join


def expected(policy):
    """What an engine in this process answers."""
    inside = VLLMSampler(Pretend(policy.model), policy, SampleConfig(max_tokens=6), (STOP,))
    inside.sync()
    return inside.generate(PROMPTS, answers=2, seed=0)


def apart(found, expected):
    """Whether answers differ in tokens, or in log-probabilities by more than rounding."""
    pairs = [
        (a, b)
        for row, other in zip(found, expected, strict=True)
        for a, b in zip(row, other, strict=True)
    ]
    return any(a.tokens != b.tokens for a, b in pairs) or not all(
        torch.allclose(torch.tensor(a.logp), torch.tensor(b.logp), atol=1e-6) for a, b in pairs
    )


@pytest.mark.parametrize("count", [1, 2])
def test_servers_answer_as_the_policy_would(count, policy, start, join, tmp_path):
    servers = [start() for _ in range(count)]
    sampler = join(*(server.url for server in servers))
    sampler.sync()
    assert not apart(sampler.generate(PROMPTS, answers=2, seed=0), expected(policy))
    assert all(server.answered > 1 for server in servers)
    sampler.engine.close()
    assert not (tmp_path / "weights").exists()


def test_a_server_that_dies_and_comes_back_is_given_the_weights_again(policy, start, join):
    server = start(dies_after=3)  # the probe and two answers
    sampler = join(server.url, wait=30.0)
    sampler.sync()

    def restart():
        time.sleep(0.5)
        server.stop()
        start(port=server.port)

    thread = threading.Thread(target=restart)
    thread.start()
    assert not apart(sampler.generate(PROMPTS, answers=2, seed=0), expected(policy))
    thread.join()


def test_a_server_that_stays_away_stops_the_run_in_time(start, join):
    server = start()
    sampler = join(server.url, wait=0.5)
    sampler.sync()
    server.stop()
    begun = time.monotonic()
    with pytest.raises(RunError, match=r"does not answer.*--resume"):
        sampler.generate(PROMPTS, answers=2, seed=0)
    assert time.monotonic() - begun < 10


def test_weights_of_another_run_are_noticed_and_replaced(policy, start, join):
    server = start()
    sampler, other = join(server.url, wait=30.0), join(server.url)
    sampler.sync()
    other.sync()
    assert not apart(sampler.generate(PROMPTS, answers=2, seed=0), expected(policy))
    assert server.tag.endswith("/0")


def test_a_server_whose_weights_change_all_the_time_stops_the_run(start, join):
    server = start()
    sampler = join(server.url, wait=2.0)
    sampler.sync()
    choices = server._choices

    def other(body):
        found = choices(body)
        found[0]["weight_versions"][0]["version"] = "other/1"
        return found

    server._choices = other
    with pytest.raises(RunError, match="another run uses it"):
        sampler.generate(PROMPTS, answers=2, seed=0)


def test_all_servers_that_are_of_no_use_are_named(start, join):
    server = start()
    with pytest.raises(UserError) as caught:
        join(server.url, "node7:8000", "http://127.0.0.1:9")
    first, second = caught.value.faults
    assert "node7:8000" in first.place
    assert "no address" in first.found
    assert "127.0.0.1:9" in second.place
    assert "ftkit serve" in second.remedy


def test_a_dropped_connection_is_a_server_that_does_not_answer(start, join):
    server = start()
    sampler = join(server.url)
    sampler.sync()
    server._choices = lambda _: 1 / 0  # the connection ends without an answer
    with pytest.raises(ServiceError, match="does not answer"):
        sampler.generate(PROMPTS, answers=2, seed=0)


def test_a_refusal_is_told_and_not_repeated(start, join):
    server = start()
    sampler = join(server.url, wait=60.0)
    sampler.sync()
    asked = []

    def refuse(body):
        asked.append(body)
        raise RefusedError(400, "too long")

    server._choices = refuse
    with pytest.raises(ServiceError, match=r"400.*too long"):
        sampler.generate(PROMPTS[:1], answers=2, seed=0)
    assert len(asked) == 1


@pytest.mark.parametrize("second", [0.01, -1.0])
def test_every_server_is_probed(policy, start, join, second):
    one, other = start(), start()
    other.engine.spoil = second
    with pytest.raises(RunError, match="does not have the policy's weights"):
        join(one.url, other.url).sync()


def test_a_server_that_does_not_see_the_folder_is_told(policy, start, join, monkeypatch):
    server = start()
    monkeypatch.setattr(pretend, "_read", lambda _: ())
    with pytest.raises(ServiceError, match=r"found 0 of \d+ weights.*exchange"):
        join(server.url).sync()


def test_a_server_that_comes_late_is_waited_for(policy, start, join):
    first = start()
    first.stop()
    timer = threading.Timer(0.5, lambda: start(port=first.port))
    timer.start()
    join(first.url, wait=30.0).sync()
    timer.join()


def test_a_server_for_shorter_answers_is_refused(start, join):
    server = start()
    server.reads = 15
    with pytest.raises(UserError, match=r"reads 15 tokens.*up to 16"):
        join(server.url)


def test_a_run_that_shall_stop_does_not_wait(start, join):
    server = start()
    sampler = join(server.url, wait=300.0)
    sampler.sync()
    server.stop()
    sampler.engine.heed(lambda: True)
    with pytest.raises(ServiceError, match="does not answer"):
        sampler.generate(PROMPTS, answers=1, seed=0)


def test_weights_of_processes_that_are_gone_are_removed_and_no_others(start, join, tmp_path):
    server, host = start(), socket.gethostname()
    mine, other = join(server.url), join(server.url)
    mine.sync()
    dead = subprocess.Popen(["true"])
    dead.wait()
    gone, elsewhere = (tmp_path / "weights" / f"{h}-{dead.pid}-ab12-3" for h in (host, "node7"))
    gone.mkdir()
    elsewhere.mkdir()
    join(server.url)
    assert not gone.exists()
    assert elsewhere.exists()
    assert mine.engine._folder.exists()
    other.engine.close()
    assert mine.engine._folder.exists()
