"""``ftkit serve``: a vLLM server that takes its weights from training runs."""

from __future__ import annotations

import importlib.util
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from ftkit.core.errors import UserError, user_error
from ftkit.model.skeleton import described, skeleton
from ftkit.model.tokenizer import load_tokenizer
from ftkit.samplers.make import beside
from ftkit.samplers.vllm.sampler import SHORTEST
from ftkit.samplers.vllm.server import MODEL
from ftkit.samplers.vllm.worker import NAME
from ftkit.samplers.written import positions_of

if TYPE_CHECKING:
    from types import FrameType

    from ftkit.recipe import Loaded, Recipe

ENVIRONMENT = {
    "VLLM_SERVER_DEV_MODE": "1",  # without it, weights could not be handed over
    "VLLM_NO_USAGE_STATS": "1",
}
MARKS = 64
"""Tokens that a chat template puts around a system prompt, at most."""
AT_ONCE = 256
"""Answers that a server writes at once, at least."""


def serve(loaded: Loaded, *, host: str, port: int, dry_run: bool, further: Sequence[str]) -> int:
    """Run a server for the model of a recipe until it is stopped.

    It starts without weights: the run that asks it hands its own over first.

    Args:
        loaded: the recipe.
        host: the address to listen on.
        port: the port.
        dry_run: only say what would be run.
        further: options for vLLM itself.

    Returns:
        vLLM's exit status.

    Raises:
        UserError: if vLLM is not installed, or the model cannot be described.
    """
    recipe = loaded.recipe
    if recipe.sample is None:
        raise UserError(loaded.fault("sample", "missing", "write how answers are sampled"))
    if not dry_run and importlib.util.find_spec("vllm") is None:
        remedy = "install it: pip install vllm, or without a GPU make setup-vllm"
        raise user_error("ftkit serve", "vllm is not installed here", remedy)
    model = skeleton(recipe.model, load_tokenizer(recipe.model))
    folder = beside(recipe.run, "server").absolute()
    described(model, folder)
    longest = max(min(_longest(recipe), positions_of(model) or sys.maxsize), SHORTEST)
    said = [*_command(recipe, str(folder), longest), "--host", host, "--port", str(port), *further]
    environment = " ".join(f"{name}={value}" for name, value in ENVIRONMENT.items())
    typer.echo(f"{environment} {shlex.join(said)}", err=not dry_run)
    return 0 if dry_run else _run(said)


def _longest(recipe: Recipe) -> int:
    """Return how long prompt and answer may be together, system prompts included, in tokens."""
    assert recipe.sample is not None
    texts = [one if isinstance(one, str) else one.text for one in recipe.sample.system]
    system = max((len(text.encode()) for text in texts), default=0)  # a token has a byte or more
    template = MARKS if system else 0
    return recipe.data.max_length + recipe.sample.max_tokens + system + template


def _command(recipe: Recipe, folder: str, longest: int) -> list[str]:
    import torch

    assert recipe.sample is not None
    eager = [] if torch.cuda.is_available() else ["--enforce-eager"]
    return [
        sys.executable,
        *("-m", "vllm.entrypoints.openai.api_server"),
        *("--model", folder),
        *("--served-model-name", MODEL),
        *("--load-format", "dummy"),
        *("--dtype", recipe.model.dtype),
        *("--max-model-len", str(longest)),
        *("--logprobs-mode", "processed_logprobs"),
        *("--generation-config", "vllm"),
        *("--worker-extension-cls", NAME),
        *("--max-num-seqs", str(max(AT_ONCE, recipe.sample.answers))),
        "--tokens-only",
        "--skip-tokenizer-init",
        *eager,
    ]


def _run(command: Sequence[str]) -> int:
    """Run vLLM in a group of processes of its own, and end all of them at the end."""
    on: subprocess.Popen[bytes] | None = None
    stopped = 0

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal stopped
        stopped = number
        if on is not None:
            _signal(on, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    on = subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, start_new_session=True)
    if stopped:
        _signal(on, stopped)
    status = on.wait()
    _signal(on, signal.SIGKILL)  # what it left behind
    return status if status >= 0 else 128 - status


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
