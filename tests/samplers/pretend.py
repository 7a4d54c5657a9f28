"""Stand-ins for vLLM that sample with the embedded sampler: as an engine, and as a server."""

from __future__ import annotations

import json
import threading
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch

from ftkit.samplers.config import SampleConfig
from ftkit.samplers.hf import HFSampler
from ftkit.samplers.vllm.server import MODEL
from ftkit.samplers.vllm.worker import _read
from ftkit.samplers.written import Drawn


class Words:
    """A tokenizer of numbers."""

    def batch_decode(self, rows, **_):
        return [" ".join(map(str, row)) for row in rows]


class Pretend:
    """An engine with a model of its own, which has the policy's weights once they are loaded."""

    def __init__(self, model, spoil=0.0):
        self.model, self.spoil = deepcopy(model), spoil
        self.version, self.calls, self.said, self.asleep = None, [], [], False
        self.places = 1
        with torch.no_grad():
            for weight in self.model.parameters():
                weight.normal_()

    def load(self, weights, version):
        self.calls.append("load")
        state = {name: value.clone() + self.spoil for name, value in weights.items()}
        missing = self.model.load_state_dict(state, strict=False).missing_keys
        assert set(missing) <= set(self.model._tied_weights_keys or ())
        self.version = version

    def ask(self, requests, config, stop):
        self.calls.append("ask")
        self.said += requests
        assert not self.asleep
        return [self._answer(each, config, stop) for each in requests]

    def _answer(self, request, config, stop):
        cut = config.model_copy(update={"max_tokens": request.max_tokens})
        asked = {"answers": request.answers, "seed": request.seed}
        found = HFSampler(self.model, Words(), cut, stop).generate([request.prompt], **asked)[0]
        return [Drawn(list(one.tokens), list(one.logp)) for one in found]

    def heed(self, stopped):
        pass

    shared = False

    def sleep(self):
        self.calls.append("sleep")
        self.asleep = True

    def wake(self):
        self.calls.append("wake")
        self.asleep = False

    def close(self):
        self.calls.append("close")


class PretendServer:
    """The part of a vLLM server that is used, on a port of this machine."""

    reads = 64

    def __init__(self, model, port=0, dies_after=None):
        self.engine, self.tag, self.answered = Pretend(model), "default", 0
        self.dies_after = dies_after
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer._get(self)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer._post(self, json.loads(body))

            def log_message(self, *_):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    def stop(self):
        self._http.shutdown()
        self._http.server_close()

    def _get(self, handler):
        known = {"/health": None, "/weight_info": {"weight_version": self.tag}}
        known["/v1/models"] = {"data": [{"id": MODEL, "max_model_len": self.reads}]}
        if handler.path in known:
            _answer(handler, 200, known[handler.path])
        else:
            _answer(handler, 404, {})

    def _post(self, handler, body):
        with self._lock:
            if handler.path == "/collective_rpc":
                assert body["method"] == "take_weights"
                weights = dict(_read(Path(body["kwargs"]["folder"])))
                if weights:
                    self.engine.load(weights, None)
                _answer(handler, 200, {"results": [{"taken": len(weights)}]})
                return
            if handler.path.startswith("/reset_prefix_cache"):
                assert "reset_running_requests=true" in handler.path
                _answer(handler, 200, {"success": True})
                return
            if handler.path == "/update_weight_version":
                self.tag = body["new_version"]
            elif handler.path == "/inference/v1/generate":
                if self.dies_after is not None and self.answered >= self.dies_after:
                    handler.connection.close()
                    return
                self.answered += 1
                try:
                    _answer(handler, 200, {"choices": self._choices(body)})
                except RefusedError as refused:
                    _answer(handler, *refused.args)
                return
        _answer(handler, 200, None)

    def _choices(self, body):
        said = body["sampling_params"]
        config = SampleConfig(temperature=said["temperature"])
        prompt, n, seed = body["token_ids"], said["n"], said["seed"]
        request = _Asked(prompt, n, seed, said["max_tokens"])
        stop = said["stop_token_ids"]
        return [
            {
                "finish_reason": "stop" if one.tokens[-1] in stop else "length",
                "token_ids": one.tokens,
                "weight_versions": [{"version": self.tag, "start": 0, "end": len(one.tokens)}],
                "logprobs": {"content": [{"logprob": x} for x in one.logp]},
            }
            for one in self.engine._answer(request, config, stop)
        ]


class RefusedError(Exception):
    """A request that the server will not do: status, text."""


class _Asked:
    def __init__(self, prompt, answers, seed, max_tokens):
        self.prompt, self.answers, self.seed, self.max_tokens = prompt, answers, seed, max_tokens


def _answer(handler, status, body):
    text = b"" if body is None else json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(text)))
    handler.end_headers()
    handler.wfile.write(text)
