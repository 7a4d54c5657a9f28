"""What a recipe needs and the machine may lack."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ftkit.recipe import missing_files
from ftkit.recipe.files import is_path
from ftkit.samplers.vllm.http import is_up
from ftkit.tasks.doctor.builds import compilers
from ftkit.tasks.doctor.finding import LATER, BrokenError, Finding, Later, size
from ftkit.tasks.doctor.inside import ask
from ftkit.tasks.doctor.storage import existing
from ftkit.verifiers.check import faults_of, listed

if TYPE_CHECKING:
    from ftkit.core.errors import Fault
    from ftkit.recipe import Loaded, Recipe
    from ftkit.tasks.doctor.devices import GPU

ANSWER = 3.0
"""Seconds that a port has to take a connection."""
MASTER = 4
"""Bytes of a trained weight in a checkpoint: float32."""
MOMENTS = {"adamw": 8, "sgd": 4}
"""Bytes of a trained weight that the optimizer's state takes."""


def files(loaded: Loaded) -> Iterator[Finding]:
    """Name the files that a recipe needs and that are not there."""
    faults = missing_files(loaded)
    yield from map(_of_fault, faults)
    if not faults:
        yield Finding("ok", "files", "all are there")


def _of_fault(fault: Fault) -> Finding:
    return Finding("problem", fault.place, fault.found, fault.remedy)


def extras(recipe: Recipe) -> Iterator[Finding]:
    """Name libraries and programs that only some recipes need, where this one does."""
    needs: list[tuple[str, str, str]] = []
    if "tensorboard" in recipe.log:
        needs.append(("log", "tensorboard", "pip install tensorboard, or leave it out of log"))
    if recipe.model.quantize is not None:
        remedy = "pip install 'ftkit[quantize]', or write quantize: null"
        needs.append(("model.quantize", "bitsandbytes", remedy))
    sample = recipe.sample
    if sample is not None and sample.engine == "vllm" and not servers_of(recipe):
        remedy = "pip install vllm, or name servers (sample.vllm.server), or sample.engine=hf"
        needs.append(("sample.engine", "vllm", remedy))
    for key, package, remedy in needs:
        if importlib.util.find_spec(package) is None:
            yield Finding("problem", key, f"{package} is not installed here", remedy)
        else:
            yield Finding("ok", key, f"{package} is installed")
    if recipe.verify is not None:
        faults = faults_of(recipe.verify)
        yield from map(_of_fault, faults)
        if not faults:
            names = ", ".join(one.name for one in listed(recipe.verify))
            yield Finding("ok", "verify", f"{names}: nothing is missing")


def servers_of(recipe: Recipe) -> Sequence[str]:
    """Return the servers that write answers."""
    server = recipe.sample.vllm.server if recipe.sample and recipe.sample.vllm else None
    return [server] if isinstance(server, str) else server or []


def servers(recipe: Recipe) -> Iterator[Finding]:
    """Say which of the servers that a recipe names do not answer."""
    for url in servers_of(recipe):
        if is_up(url.rstrip("/")):
            yield Finding("ok", "sample.vllm.server", f"{url} answers")
        else:
            remedy = (
                "start it: ftkit serve RECIPE on its machine; look at the address and firewalls"
            )
            yield Finding("problem", "sample.vllm.server", f"{url} does not answer", remedy)
    for one in listed(recipe.verify) if recipe.verify is not None else []:
        if one.name == "http":
            yield _judge(one.url)


def _judge(url: str) -> Finding:
    """Say whether something listens where answers are to be judged."""
    parts = urlsplit(url)
    at = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    try:
        socket.create_connection(at, timeout=ANSWER).close()
    except OSError as error:
        return Finding("problem", "verify.url", f"{url} does not answer: {error}", "start it")
    return Finding("ok", "verify.url", f"something listens at {url}")


def precision(
    recipe: Recipe, gpus: Sequence[GPU], torch: Later[dict[str, Any]]
) -> Iterator[Finding]:
    """Say whether the GPUs compute in the precision of a recipe.

    Args:
        recipe: that says which.
        gpus: those of this machine.
        torch: what it says of itself (``inside.torch_itself``).
    """
    if recipe.model.dtype != "bfloat16":
        return
    lacking = [gpu.index for gpu in gpus if gpu.bfloat16 is False]
    told = torch.wait(LATER)
    if lacking or (told["gpus"] and not told["bfloat16"]):
        which = f"GPU {', '.join(lacking)}" if lacking else "a GPU"
        found = f"bfloat16, and {which} does not compute in it"
        yield Finding("problem", "model.dtype", found, "write float32, or choose others")
    elif not told["gpus"]:
        found = "bfloat16 on a CPU, which is slow on most"
        yield Finding("note", "model.dtype", found, "write dtype: float32")
    else:
        yield Finding("ok", "model.dtype", "bfloat16, in which the GPUs compute")


def engine(recipe: Recipe, gpus: int) -> Iterator[Finding]:
    """Say whether DeepSpeed can be imported where a run with this recipe needs it.

    Args:
        recipe: of the run.
        gpus: how many there are; by default a run takes all.
    """
    zero = recipe.parallel.zero
    if gpus < 2 and zero != 3 and recipe.parallel.offload == "none":  # noqa: PLR2004
        return
    why = f"zero: {zero}" if zero is not None else f"{gpus} GPUs"
    try:
        version = ask("deepspeed")["version"]
    except Exception as error:  # whatever it says, it is of no use
        found = f"{why} needs DeepSpeed, which cannot be imported: {error}"
        remedy = "install it anew: pip install deepspeed; one GPU without zero needs none"
        yield Finding("problem", "parallel", found, remedy)
    else:
        yield Finding("ok", "parallel", f"{why}: DeepSpeed {version} can be imported")


def compiled(recipe: Recipe) -> Iterator[Finding]:
    """Say what is missing to compile the optimizer that a recipe keeps in the host's memory."""
    if recipe.parallel.offload == "none":
        return
    for tool in compilers():
        if tool.level == "note":
            found = f"DeepSpeed compiles its optimizer for the CPU: {tool.what}: {tool.found}"
            yield Finding("problem", "parallel.offload", found, tool.remedy)


def checkpoints(recipe: Recipe, free: int) -> Iterator[Finding]:
    """Compare the space that checkpoints of a run take with what is free.

    Args:
        recipe: of the run.
        free: bytes on the disk of the run's folder.
    """
    try:
        counted = ask("weights", recipe.model.model_dump(mode="json"))
    except BrokenError as error:
        path = recipe.model.path
        here = path is None or is_path(path)
        why = str(error) if here else f"{path} is not in the cache, or not whole"
        found = f"not known what they take: {why}; {size(free)} are free"
        yield Finding("note", "checkpoints", found)
        return
    need, told = needed(recipe, counted)
    found = f"{told}: {size(need)}, and {size(free)} are free"
    if need > free:
        remedy = "free some, lower checkpoint.keep, or write run: on another disk"
        yield Finding("problem", "checkpoints", found, remedy)
    elif 2 * need > free:
        yield Finding("note", "checkpoints", found, "more than half of what is free")
    else:
        yield Finding("ok", "checkpoints", found)


def needed(recipe: Recipe, counted: dict[str, int]) -> tuple[int, str]:
    """Return the bytes that a run's checkpoints and model take at most, and that in words.

    Args:
        recipe: of the run.
        counted: its weights, ``all`` of them and those ``trained``.
    """
    config, trained = recipe.checkpoint, counted["trained"]
    if getattr(recipe.method, "critic", None) == "own":
        trained *= 2
    state = MOMENTS[recipe.train.optimizer]
    if recipe.method.name == "trpo" or (state == MOMENTS["sgd"] and not recipe.train.momentum):
        state = 0
    # one is written before the oldest goes
    count = config.keep + 1 + (config.best is not None)
    models = 1 + (config.best is not None)
    own = counted["trained"] * (2 if recipe.model.dtype == "bfloat16" else 4)
    told = f"{count} checkpoints of {trained:,} weights, {MASTER + state} bytes each"
    return count * trained * (MASTER + state) + models * own, f"{told}, and the model"


def room(run: str) -> int:
    """Return the free bytes of the disk on which a run's folder will lie."""
    return shutil.disk_usage(existing(Path(run))).free
