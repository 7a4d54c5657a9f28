"""Ranks that stay: real processes over gloo, which run one function after another.

They are forked from a server that has imported everything, and speak the real torch.distributed and
DeepSpeed; what a function returns on each comes back.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import socket
import traceback
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path

PRELOADED = [
    "torch",
    "torch._dynamo",
    "deepspeed",
    "deepspeed.runtime.zero.stage3",
    "deepspeed.runtime.zero.muon.original_muon",
    "ftkit.cli",
    "ftkit.tasks.spread",
    "transformers",
    "peft",
    "ftkit.tasks.train",
    "ftkit.parallel.zero",
]
LIMIT = 120.0
"""Seconds that a function may take."""


class FailedError(AssertionError):
    """A function raised on some rank."""


class Ranks:
    """Some ranks that wait for work."""

    def __init__(self, size: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        port = free_port()
        self.pipes, self.processes = [], []
        for rank in range(size):
            mine, its = context.Pipe()
            process = context.Process(target=serve, args=(rank, size, port, its), daemon=True)
            process.start()
            self.pipes.append(mine)
            self.processes.append(process)

    def run(self, work, *args, **kwargs):
        """Call ``work(world, ...)`` on every rank; return what each returns."""
        for pipe in self.pipes:
            pipe.send((work, args, kwargs))
        found = []
        for rank, pipe in enumerate(self.pipes):
            if not pipe.poll(LIMIT):
                self.close()
                raise FailedError(f"rank {rank} did not end within {LIMIT} s")
            found.append(pipe.recv())
        wrong = [f"rank {r}:\n{text}" for r, (ok, text) in enumerate(found) if not ok]
        if wrong:
            raise FailedError("\n".join(wrong))
        return [value for _, value in found]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def serve(rank, size, port, pipe) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    import torch

    from ftkit.parallel.processes import Place, Processes
    from ftkit.parallel.world import OneProcess
    from ftkit.parallel.zero_config import prepare_deepspeed

    torch.set_num_threads(1)
    prepare_deepspeed()
    world = Processes(Place.of(os.environ))
    if size == 1:  # the engine wants a process group; a run of one process knows none
        world = OneProcess()
    gc.collect()
    gc.freeze()  # DeepSpeed collects often, and there is much that will never be garbage
    while True:
        work, args, kwargs = pipe.recv()
        try:
            with ExitStack() as stack:
                nowhere = stack.enter_context(Path(os.devnull).open("w"))
                stack.enter_context(redirect_stdout(nowhere))
                stack.enter_context(redirect_stderr(nowhere))
                value = True, work(world, *args, **kwargs)
        except BaseException:
            value = False, traceback.format_exc()
        pipe.send(value)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
