"""The reward of a server: a real one, on this machine."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import TypeAdapter

from ftkit.verifiers import http
from ftkit.verifiers.base import Item
from ftkit.verifiers.config import HttpConfig
from ftkit.verifiers.judge import build_judge

SEEN = []


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        SEEN.append((body, self.headers["Authorization"]))
        answer = body["answer"]
        if answer == "late":
            time.sleep(1.0)
        if answer == "busy once" and sum(each == body for each, _ in SEEN) == 1:
            return self.say(503, "")
        if answer in ("404", "302", "500"):
            return self.say(int(answer), "")
        return self.say(200, {"map": '{"reward": 0.5}', "right": "true"}.get(answer, answer))

    def do_GET(self):  # where a redirection would lead
        self.say(200, "1")

    def say(self, status, text):
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/judge"
    server.shutdown()
    server.server_close()


@pytest.fixture
def ask(server, monkeypatch):
    SEEN.clear()
    monkeypatch.setattr(http, "PAUSE", 0.01)
    monkeypatch.setenv("FTKIT_TEST_TOKEN", "secret")
    verify = http.make(
        url=server, timeout=0.3, retries=1, auth_env="FTKIT_TEST_TOKEN", threshold=0.75
    )
    return lambda answer: verify(Item(answer, "42", "what?"))


@pytest.mark.parametrize(
    ("answer", "status", "reward", "requests"),
    [
        ("right", "correct", 1.0, 1),
        ("0.8", "correct", 0.8, 1),
        ("map", "incorrect", 0.5, 1),
        ("busy once", "error", None, 2),  # whose second response is no JSON
        ("404", "error", None, 1),
        ("302", "error", None, 1),
        ("500", "error", None, 2),
        ("late", "error", None, 2),
        ("NaN", "error", None, 1),
        ('"1"', "error", None, 1),
        ("null", "error", None, 1),
        ("", "error", None, 1),
        ("1" * 2_000_000, "error", None, 1),
    ],
)
def test_verdicts(ask, answer, status, reward, requests):
    verdict = ask(answer)
    assert (verdict.status, verdict.reward) == (status, reward)
    assert len(SEEN) == requests
    assert verdict.detail or status == "correct"


def test_what_is_sent(ask):
    ask("right")
    body = {"prompt": "what?", "answer": "right", "truth": "42"}
    assert [(body, "Bearer secret")] == SEEN


def test_a_server_that_is_not_there_is_an_error_in_its_pool(server):
    there = TypeAdapter(HttpConfig).validate_python({"name": "http", "url": server, "workers": 1})
    gone = there.model_copy(update={"url": "http://127.0.0.1:9/judge", "retries": 0})
    with build_judge(there) as judge:
        assert judge.judge([Item("right", "")])[0].reward == 1
    with build_judge(gone) as judge:
        (verdict,) = judge.judge([Item("right", "")])
    assert verdict.reward is None
    assert "no answer from the server" in verdict.detail


def test_the_pool_waits_for_all_requests_and_the_pauses_between_them():
    assert http.longest(10.0, 0) == 10.0
    assert http.longest(10.0, 2) == 30.0 + http.PAUSE * (1 + 2)
