"""vLLM in servers, asked over HTTP: on other devices of the node, or on other nodes."""

from __future__ import annotations

import os
import shutil
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftkit.core.errors import Fault, RunError, ServiceError, UserError
from ftkit.core.phase import beat
from ftkit.samplers.vllm.base import parameters
from ftkit.samplers.vllm.http import LATE, SOON, LostError, Patience, get, is_up, post
from ftkit.samplers.vllm.weights import write_weights
from ftkit.samplers.written import Drawn

if TYPE_CHECKING:
    from torch import Tensor

    from ftkit.parallel.world import World
    from ftkit.samplers.config import SampleConfig
    from ftkit.samplers.vllm.base import Request

MODEL = "policy"
"""What servers call it."""
NOBODYS = "nobody's"
"""The version of weights that are just being replaced."""
START = "start it: ftkit serve RECIPE --host HOST"
AT_ONCE = 256
"""Requests under way at a time, for each server."""


def _never() -> bool:
    return False


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
    _stopped: Callable[[], bool] = field(default=_never)
    _run: str = ""
    """Names this run, so that no other run's weights are taken for its own."""
    _folder: Path | None = None
    """Where the newest weights are."""
    _expected: int = 0
    """How many of them there are."""

    @classmethod
    def join(
        cls, urls: Sequence[str], exchange: Path, wait: float, world: World, longest: int
    ) -> Servers:
        """Find the servers, or wait for them.

        Args:
            urls: where they are.
            exchange: a folder that they see, too.
            wait: seconds to wait for one that does not answer yet.
            world: the ranks that ask.
            longest: tokens of the longest prompt and answer together.

        Raises:
            UserError: if one does not answer, or was not started by ``ftkit serve`` for this.
        """
        urls = [url.rstrip("/") for url in urls]
        patience = Patience(urls, wait, _never)
        while True:
            found = [_fault_of(url, longest) for url in urls]
            lost = [each for each in found if isinstance(each, LostError)]
            if not any(found):
                break
            faults = [
                Fault(f"sample.vllm.server {url}", str(each), START)
                if isinstance(each, LostError)
                else each
                for url, each in zip(urls, found, strict=True)
                if each is not None
            ]
            if len(lost) < len(faults):  # waiting would not mend the others
                raise UserError(faults)
            try:
                patience.wait_out(lost[0])
            except ServiceError as error:
                raise UserError(faults) from error
        run = world.gather([_new_name()])[0]
        if world.rank == 0:
            _sweep(exchange)
        return cls(urls, exchange, wait, world, _run=run)

    @property
    def places(self) -> int:
        """How many there are that have weights of their own."""
        return len(self.urls)

    @property
    def shared(self) -> bool:
        """Each rank asks for itself."""
        return False

    def load(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Take weights (``Engine.load``)."""
        before, self.version = self._folder, version
        self._folder = self.exchange / f"{self._run}-{version}"
        self._expected = len(weights)
        if self.world.rank == 0:
            write_weights(weights, self._folder)
            if before is not None and before != self._folder:
                shutil.rmtree(before, ignore_errors=True)
            patience = self._patience()
            while True:
                try:
                    self._of_all(self._hand_over)
                    break
                except LostError as error:
                    patience.wait_out(error)
        self.world.gather([0])  # nobody asks before all servers have them

    def ask(
        self, requests: Sequence[Request], config: SampleConfig, stop: Sequence[int]
    ) -> list[list[Drawn]]:
        """Return answers (``Engine.ask``); a server that comes back is given the weights again."""
        found: dict[int, list[Drawn]] = {}
        patience = self._patience()
        while left := [i for i in range(len(requests)) if i not in found]:
            try:
                self._round(requests, left, found, config, stop)
            except LostError as error:
                patience.wait_out(error, progress=len(found))
                with suppress(LostError):  # it will show in the next round
                    self._of_all(self._hand_over_again)
        return [found[i] for i in range(len(requests))]

    def heed(self, stopped: Callable[[], bool]) -> None:
        """Give up waiting for servers as soon as this says that the run shall stop."""
        self._stopped = stopped

    def sleep(self) -> None:
        """Do nothing: servers have devices of their own."""

    def wake(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Remove the weights that were handed over; the servers go on."""
        if self.world.rank == 0:
            for folder in self.exchange.glob(f"{self._run}-*"):
                shutil.rmtree(folder, ignore_errors=True)
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

        def send(i: int) -> tuple[int, list[Drawn] | LostError]:
            said = {
                "model": MODEL,
                "token_ids": list(requests[i].prompt),
                "sampling_params": parameters(requests[i], config, stop),
            }
            try:
                url = self.urls[i % len(self.urls)]
                return i, _read(post(url, "/inference/v1/generate", said, LATE), tag, url)
            except LostError as error:
                return i, error

        with ThreadPoolExecutor(AT_ONCE * len(self.urls)) as pool:
            for i, answer in pool.map(send, left):
                beat()
                if isinstance(answer, LostError):
                    lost.append(answer)
                else:
                    found[i] = answer
        if lost:
            raise lost[0]

    def _tag(self) -> str:
        return f"{self._run}/{self.version}"

    def _patience(self) -> Patience:
        return Patience(self.urls, self.wait, self._stopped)

    def _of_all(self, action: Callable[[str], None]) -> None:
        with ThreadPoolExecutor(len(self.urls)) as pool:
            list(pool.map(action, self.urls))

    def _hand_over(self, url: str) -> None:
        # The label goes first and comes last: no token of the time between can be taken for ours.
        post(url, "/update_weight_version", {"new_version": NOBODYS}, SOON)
        call = {"method": "take_weights", "kwargs": {"folder": str(self._folder)}}
        try:
            told = post(url, "/collective_rpc", call, LATE)
        except LostError as error:
            if not is_up(url):
                raise
            raise ServiceError(f"weights could not be handed over: {error}") from error
        took = {each["taken"] for each in told["results"]}
        if took != {self._expected}:
            raise LostError(  # a network's file system may show them later
                f"the server at {url} found {max(took)} of {self._expected} weights in "
                f"{self._folder}: sample.vllm.exchange must be a folder that it sees, too"
            )
        reset = "/reset_prefix_cache?reset_running_requests=true"
        if not (post(url, reset, {}, SOON) or {}).get("success"):
            raise LostError(f"the server at {url} does not forget what older weights cached")
        post(url, "/update_weight_version", {"new_version": self._tag()}, SOON)

    def _hand_over_again(self, url: str) -> None:
        if get(url, "/weight_info")["weight_version"] != self._tag():
            self._hand_over(url)


def _new_name() -> str:
    """Return a name for this run that says who can still need its weights."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _sweep(exchange: Path) -> None:
    """Remove weights of processes of this machine that ended without time to do so."""
    for folder in exchange.glob(f"{socket.gethostname()}-*-*-*"):
        pid = folder.name.split("-")[-3]
        if pid.isdecimal() and not _is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # no signal: it only asks
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _fault_of(url: str, longest: int) -> Fault | LostError | None:
    """Say why a server is of no use, or that it does not answer; None if all is well."""
    place = f"sample.vllm.server {url}"
    if not url.startswith("http://"):
        return Fault(place, "no address of a server", "write one such as http://node7:8000")
    try:
        get(url, "/weight_info")
        served = get(url, "/v1/models")["data"]
        names = [each["id"] for each in served]
        reads = min(each["max_model_len"] for each in served)
    except LostError as error:
        return error
    except (RunError, KeyError, TypeError, ValueError) as error:
        return Fault(place, str(error), START)
    if names != [MODEL]:
        return Fault(place, f"it serves {', '.join(names)}", START)
    if reads < longest:
        found = f"it reads {reads} tokens, and prompt and answer have up to {longest}"
        return Fault(place, found, "start it by ftkit serve with this recipe")
    return None


def _read(response: Any, tag: str, url: str) -> list[Drawn]:
    """Return the answers to one request."""
    drawn = []
    for choice in response["choices"]:
        if choice["finish_reason"] not in {"stop", "length"}:
            raise LostError(f"the server at {url} ended an answer by '{choice['finish_reason']}'")
        versions = {span["version"] for span in choice["weight_versions"]}
        if versions != {tag}:
            raise LostError(
                f"the server at {url} answered by other weights: it was started anew, or another "
                "run uses it"
            )
        told = choice["logprobs"]["content"]
        drawn.append(Drawn(choice["token_ids"], [each["logprob"] for each in told]))
    return drawn
