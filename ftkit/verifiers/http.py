"""The reward that a server returns."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from typing import Any

from ftkit.verifiers.base import Item, ItemVerifier, Verdict
from ftkit.verifiers.python import graded

LARGEST = 1_000_000
"""Bytes of a response that are read."""
PAUSE = 0.5
"""Seconds before the first further request; doubled before each one after it."""
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""States of a server that may pass."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET without its body."""

    def redirect_request(self, *_: Any) -> None:
        return None


def make(
    *, url: str, timeout: float, retries: int, auth_env: str | None, threshold: float
) -> ItemVerifier:
    """Return the verifier of ``HttpConfig``: one request after another, until one is answered."""
    opener = urllib.request.build_opener(_NoRedirect)
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if auth_env is not None:
        headers["Authorization"] = f"Bearer {os.environ[auth_env]}"

    def ask(item: Item) -> Verdict:
        told = {"prompt": item.prompt, "answer": item.answer, "truth": item.truth}
        body = json.dumps(told).encode()
        request = urllib.request.Request(url, body, headers, method="POST")
        with opener.open(request, timeout=timeout) as response:
            return _read(response.read(LARGEST + 1), threshold)

    def verify(item: Item) -> Verdict:
        for attempt in range(retries + 1):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                return ask(item)
            except urllib.error.HTTPError as error:
                reason = f"the server says {error.code} {error.reason}"
                if error.code not in BUSY:
                    break
            except OSError as error:  # refused, reset, late, an unknown name
                reason = f"no answer from the server: {getattr(error, 'reason', error)}"
            except Exception as error:
                reason = f"no sense from the server: {type(error).__name__}: {error}"
        return Verdict("error", None, reason)

    return verify


def _read(body: bytes, threshold: float) -> Verdict:
    if len(body) > LARGEST:
        return Verdict("error", None, f"the server's response has more than {LARGEST} bytes")
    try:
        value = json.loads(body)
    except ValueError:
        return Verdict("error", None, f"the server's response is no JSON: {body[:80]!r}")
    if isinstance(value, dict):
        value = value.get("reward")
    return graded(value, threshold, "the server")


def longest(timeout: float, retries: int) -> float:
    """Return the seconds that all requests and the pauses between them may take together."""
    return (retries + 1) * timeout + PAUSE * float(2**retries - 1)
