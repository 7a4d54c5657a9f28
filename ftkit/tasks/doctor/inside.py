"""What only torch and its kin can tell, asked in a process of its own: it may crash or hang.

``python -m ftkit.tasks.doctor.inside torch | deepspeed | weights`` prints one line of JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from typing import Any

from ftkit.tasks.doctor.finding import LATER, BrokenError, said

MARK = "ftkit-doctor:"
"""What the line begins with: libraries print, too."""


def ask(what: str, given: object = None) -> dict[str, Any]:
    """Return what a function of this module finds in a process of its own.

    Args:
        what: its name.
        given: what it reads, as JSON writes it.

    Raises:
        BrokenError: if it fails, with the last words of that process.
    """
    command = [sys.executable, "-m", "ftkit.tasks.doctor.inside", what]
    text = said(command, seconds=LATER, given=json.dumps(given))
    for line in text.splitlines():
        if line.startswith(MARK):
            found: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return found
    raise BrokenError("no answer")


def torch_itself(_: object) -> dict[str, Any]:
    """Tell torch's version, what it was built with, and the GPUs that it can use."""
    import torch

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
        count = torch.cuda.device_count() if usable else 0
    gpus = []
    for index in range(count):
        about = torch.cuda.get_device_properties(index)
        capability = (about.major, about.minor)
        gpus.append({"name": about.name, "memory": about.total_memory, "capability": capability})
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "nccl": _nccl(),
        "gpus": gpus,
        "bfloat16": bool(usable and torch.cuda.is_bf16_supported(including_emulation=False)),
        "threads": torch.get_num_threads(),
        "warnings": [str(each.message).splitlines()[0] for each in told],
    }


def _nccl() -> str | None:
    import torch

    if not torch.distributed.is_available() or not torch.distributed.is_nccl_available():
        return None
    version = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
    return ".".join(map(str, version))


def deepspeed(_: object) -> dict[str, Any]:
    """Tell DeepSpeed's version, if it can be imported; nothing else is done with it here."""
    return {"version": importlib.import_module("deepspeed").__version__}


def weights(model: Any) -> dict[str, Any]:
    """Count the weights of a recipe's ``model:``, all of them and those that are trained.

    Nothing is fetched from the hub for it.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    from ftkit.model.adapters import with_adapters
    from ftkit.model.config import ModelConfig
    from ftkit.model.skeleton import skeleton
    from ftkit.model.tokenizer import load_tokenizer

    config = ModelConfig.model_validate(model)
    empty = skeleton(config, load_tokenizer(config))
    if config.lora is not None:
        empty = with_adapters(empty, config, "CAUSAL_LM")
    parameters = list(empty.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    return {"all": sum(p.numel() for p in parameters), "trained": trained}


FUNCTIONS = {"torch": torch_itself, "deepspeed": deepspeed, "weights": weights}

if __name__ == "__main__":
    answer = FUNCTIONS[sys.argv[1]](json.load(sys.stdin))
    sys.stdout.write(f"{MARK}{json.dumps(answer)}\n")
