"""How servers are spoken to, and how long a run waits for them."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from ftkit.core.errors import RunError, ServiceError
from ftkit.core.phase import beat

LATE = 24 * 3600.0
"""Seconds after which an answer is not waited for any longer, from a machine that is alive."""
SOON = 10.0
"""The same for questions that are answered at once."""
PAUSE = 1.0
"""Seconds between looks at a server that is gone."""
ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 8}
"""A machine that is gone without a word is noticed after three minutes."""

log = logging.getLogger("ftkit")


class LostError(Exception):
    """A server gave no answer, or one by other weights: it may come back."""


class _Connection(http.client.HTTPConnection):
    """One that notices when the other machine is gone."""

    def connect(self) -> None:
        super().connect()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in ALIVE.items():
            if hasattr(socket, name):
                self.sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class _Handler(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, request)


# nodes of a cluster are not reached by the proxy of the environment
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Handler())


def get(url: str, path: str) -> Any:
    """Return what a server says.

    Raises:
        LostError: if it does not answer.
        RunError: if it refuses, or makes no sense.
    """
    return _parsed(url, _send(urllib.request.Request(url + path), SOON))


def post(url: str, path: str, body: object, timeout: float) -> Any:
    """Tell a server something, and return what it says; None for nothing (``get``)."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers, method="POST")
    text = _send(request, timeout)
    return _parsed(url, text) if text.strip() else None


def is_up(url: str) -> bool:
    """Whether a server can answer."""
    try:
        _send(urllib.request.Request(f"{url}/health"), SOON)
    except (LostError, RunError):
        return False
    return True


def _parsed(url: str, text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ServiceError(f"what answers at {url} is no vLLM: {text[:60]!r}") from error


def _send(request: urllib.request.Request, timeout: float) -> bytes:
    try:
        with _OPENER.open(request, timeout=timeout) as response:
            body: bytes = response.read()
            return body
    except urllib.error.HTTPError as error:
        said = error.read(500).decode(errors="replace")
        text = f"the server at {request.host} answers {error.code} {error.reason}: {said}"
        # an engine that died leaves its server answering for a moment
        refused = error.code < http.client.INTERNAL_SERVER_ERROR
        raise (ServiceError if refused else LostError)(text) from error
    except (OSError, http.client.HTTPException) as error:  # refused, reset, late, cut off
        reason = getattr(error, "reason", None) or error
        raise LostError(f"the server at {request.host} does not answer ({reason})") from error


class Patience:
    """How long a run waits for its servers, from the last answer that it got."""

    def __init__(self, urls: Sequence[str], seconds: float, stopped: Callable[[], bool]) -> None:
        """Take addresses, the time, and what says that the run shall stop."""
        self._urls, self._seconds, self._stopped = urls, seconds, stopped
        self._progress = -1
        self._deadline = 0.0

    def wait_out(self, error: LostError, progress: int = 0) -> None:
        """Wait until all servers answer.

        Args:
            error: what happened.
            progress: grows with what was achieved; if it has, the time begins anew.

        Raises:
            ServiceError: if the time is over, or the run shall stop.
        """
        if progress > self._progress:
            self._progress, self._deadline = progress, time.monotonic() + self._seconds
            log.warning("%s; waiting up to %.0f s for it", error, self._seconds)
        while time.monotonic() < self._deadline and not self._stopped():
            beat()
            time.sleep(min(PAUSE, self._seconds))
            if all(is_up(url) for url in self._urls):
                return
        raise ServiceError(
            f"{error}. Start it again by `ftkit serve`, then go on with --resume; "
            "sample.vllm.wait says how long a run waits for a server"
        )
