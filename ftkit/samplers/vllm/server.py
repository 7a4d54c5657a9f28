"""vLLM in servers, asked over HTTP: on other devices of the node, or on other nodes."""

from __future__ import annotations

import http.client
import json
import logging
import shutil
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftkit.core.errors import Fault, RunError, UserError
from ftkit.samplers.vllm.base import parameters
from ftkit.samplers.vllm.weights import write_weights
from ftkit.samplers.written import Drawn

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.parallel.world import World
    from ftkit.samplers.config import SampleConfig
    from ftkit.samplers.vllm.base import Request

MODEL = "policy"
"""What servers call it."""
AT_ONCE = 256
"""Requests under way at a time."""
LATE = 3600.0
"""Seconds after which an answer is not waited for any longer."""
SOON = 10.0
"""The same for questions that are answered at once."""
PAUSE = 1.0
"""Seconds between looks at a server that is gone."""

log = logging.getLogger("ftkit")


class _LostError(Exception):
    """A server gave no answer, or one by other weights: it may come back."""


@dataclass
class Servers:
    """Servers that hold the same weights; prompts are dealt among them."""

    urls: Sequence[str]
    exchange: Path
    """A folder that they see, too, for weights."""
    wait: float
    """Seconds to wait for one that is gone."""
    world: World
    """The ranks that ask; the first one hands weights over."""
    version: int | None = None
    _run: str = ""
    """Names this run, so that no other run's weights are taken for its own."""
    _folder: Path | None = None
    """Where the newest weights are."""

    @classmethod
    def join(cls, urls: Sequence[str], exchange: Path, wait: float, world: World) -> Servers:
        """Find the servers.

        Raises:
            UserError: if one does not answer, or was not started by ``ftkit serve``.
        """
        faults = [fault for url in urls if (fault := _fault_of(url))]
        if faults:
            raise UserError(faults)
        run = world.gather([uuid.uuid4().hex[:12]])[0]
        return cls([url.rstrip("/") for url in urls], exchange, wait, world, _run=run)

    def load(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Take weights (``Engine.load``)."""
        before, self.version = self._folder, version
        self._folder = self.exchange / f"{self._run}-{version}"
        if self.world.rank == 0:
            write_weights(weights, self._folder)
            patience = _Patience(self.urls, self.wait)
            while True:
                try:
                    self._of_all(self._hand_over)
                    break
                except _LostError as error:
                    patience.wait_out(error)
            if before is not None:
                shutil.rmtree(before, ignore_errors=True)
        self.world.gather([0])  # nobody asks before all servers have them

    def ask(
        self, requests: Sequence[Request], config: SampleConfig, stop: Sequence[int]
    ) -> list[list[Drawn]]:
        """Return answers (``Engine.ask``); a server that comes back is given the weights again."""
        found: dict[int, list[Drawn]] = {}
        patience = _Patience(self.urls, self.wait)
        while left := [i for i in range(len(requests)) if i not in found]:
            try:
                self._round(requests, left, found, config, stop)
            except _LostError as error:
                patience.wait_out(error, progress=len(found))
                with suppress(_LostError):  # it will show in the next round
                    self._of_all(self._hand_over_again)
        return [found[i] for i in range(len(requests))]

    def sleep(self) -> None:
        """Do nothing: servers have devices of their own."""

    def wake(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Remove the weights that were handed over; the servers go on."""
        if self.world.rank == 0 and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            with suppress(OSError):  # others may have theirs there
                self.exchange.rmdir()

    def _round(
        self,
        requests: Sequence[Request],
        left: Sequence[int],
        found: dict[int, list[Drawn]],
        config: SampleConfig,
        stop: Sequence[int],
    ) -> None:
        """Send requests, and keep what is answered by the right weights."""
        tag, lost = self._tag(), []

        def send(i: int) -> tuple[int, list[Drawn] | _LostError]:
            said = {
                "model": MODEL,
                "token_ids": list(requests[i].prompt),
                "sampling_params": parameters(requests[i], config, stop),
            }
            try:
                url = self.urls[i % len(self.urls)]
                return i, _read(_post(url, "/inference/v1/generate", said, LATE), tag, url)
            except _LostError as error:
                return i, error

        with ThreadPoolExecutor(AT_ONCE) as pool:
            for i, answer in pool.map(send, left):
                if isinstance(answer, _LostError):
                    lost.append(answer)
                else:
                    found[i] = answer
        if lost:
            raise lost[0]

    def _tag(self) -> str:
        return f"{self._run}/{self.version}"

    def _of_all(self, action: Callable[[str], None]) -> None:
        with ThreadPoolExecutor(len(self.urls)) as pool:
            list(pool.map(action, self.urls))

    def _hand_over(self, url: str) -> None:
        call = {"method": "take_weights", "kwargs": {"folder": str(self._folder)}}
        _post(url, "/collective_rpc", call, LATE)
        _post(url, "/reset_prefix_cache", {}, SOON)
        _post(url, "/update_weight_version", {"new_version": self._tag()}, SOON)

    def _hand_over_again(self, url: str) -> None:
        if _get(url, "/weight_info")["weight_version"] != self._tag():
            self._hand_over(url)


class _Patience:
    """How long a run waits for its servers, from the last answer that it got."""

    def __init__(self, urls: Sequence[str], seconds: float) -> None:
        self._urls, self._seconds = urls, seconds
        self._progress = -1
        self._deadline = 0.0

    def wait_out(self, error: _LostError, progress: int = 0) -> None:
        """Wait until all servers answer.

        Args:
            error: what happened.
            progress: grows with what was achieved; if it has, the time begins anew.

        Raises:
            RunError: if the time is over.
        """
        if progress > self._progress:
            self._progress, self._deadline = progress, time.monotonic() + self._seconds
            log.warning("%s; waiting up to %.0f s for it", error, self._seconds)
        while time.monotonic() < self._deadline:
            time.sleep(min(PAUSE, self._seconds))
            if all(_is_up(url) for url in self._urls):
                return
        raise RunError(
            f"{error}. Start it again by `ftkit serve`, then go on with --resume from the newest "
            "checkpoint; sample.vllm.wait says how long a run waits for a server"
        )


def _fault_of(url: str) -> Fault | None:
    """Say why a server is of no use; None if it is."""
    place, remedy = f"sample.vllm.server {url}", "start it: ftkit serve RECIPE --host HOST"
    if not url.startswith(("http://", "https://")):
        return Fault(place, "no address of a server", "write one such as http://node7:8000")
    try:
        _get(url.rstrip("/"), "/weight_info")
        named = [each["id"] for each in _get(url.rstrip("/"), "/v1/models")["data"]]
    except (_LostError, RunError, KeyError, TypeError) as error:
        return Fault(place, str(error), remedy)
    return None if named == [MODEL] else Fault(place, f"it serves {', '.join(named)}", remedy)


def _is_up(url: str) -> bool:
    try:
        _send(urllib.request.Request(f"{url}/health"), SOON)
    except (_LostError, RunError):
        return False
    return True


def _get(url: str, path: str) -> Any:
    return json.loads(_send(urllib.request.Request(url + path), SOON))


def _post(url: str, path: str, body: object, timeout: float) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers, method="POST")
    text = _send(request, timeout)
    return json.loads(text) if text.strip() else None


def _send(request: urllib.request.Request, timeout: float) -> bytes:
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            body: bytes = response.read()
            return body
    except urllib.error.HTTPError as error:
        said = error.read(500).decode(errors="replace")
        text = f"the server at {request.host} answers {error.code} {error.reason}: {said}"
        # an engine that died leaves its server answering for a moment
        refused = error.code < http.client.INTERNAL_SERVER_ERROR
        raise (RunError if refused else _LostError)(text) from error
    except (OSError, http.client.HTTPException) as error:  # refused, reset, late, cut off
        reason = getattr(error, "reason", None) or error
        raise _LostError(f"the server at {request.host} does not answer ({reason})") from error


def _read(response: Any, tag: str, url: str) -> list[Drawn]:
    """Return the answers to one request."""
    drawn = []
    for choice in response["choices"]:
        if choice["finish_reason"] not in {"stop", "length"}:
            raise _LostError(f"the server at {url} ended an answer by '{choice['finish_reason']}'")
        versions = {span["version"] for span in choice["weight_versions"]}
        if versions != {tag}:
            raise _LostError(
                f"the server at {url} answered by other weights: it was started anew, or "
                "another run uses it"
            )
        told = choice["logprobs"]["content"]
        drawn.append(Drawn(choice["token_ids"], [each["logprob"] for each in told]))
    return drawn
