"""What DeepSpeed is told: a dictionary without ``auto`` and without a key that it does not know."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from ftkit.core.errors import user_error
from ftkit.parallel.config import ParallelConfig, Stage

SHARED_WEIGHTS: Stage = 3
"""The stage at which each rank holds a share of the weights alone."""

SETTABLE = frozenset(
    {
        "zero_optimization",
        "communication_data_type",
        "prescale_gradients",
        "gradient_predivide_factor",
        "sparse_gradients",
        "aio",
        "wall_clock_breakdown",
        "memory_breakdown",
        "flops_profiler",
        "comms_logger",
        "dump_state",
    }
)
"""Sections of DeepSpeed's that ``parallel.deepspeed`` may hold; the others are the recipe's."""

OWN = frozenset({"stage", "offload_optimizer", "offload_param"})
"""Keys of ``zero_optimization`` that the recipe says itself."""


def stage_of(config: ParallelConfig, size: int, *, trpo: bool = False) -> Stage:
    """Return the stage of ZeRO that a run has, 0 where no engine is needed.

    Args:
        config: the recipe's ``parallel:``.
        size: how many ranks there are.
        trpo: whether the method is trpo.

    >>> stage_of(ParallelConfig(), 2), stage_of(ParallelConfig(zero=3), 1)
    (1, 0)
    """
    if trpo:
        return 0
    if size == 1 and config.offload == "none":
        return 0  # nobody to share with
    return 1 if config.zero is None else config.zero


def zero_config(
    config: ParallelConfig, stage: Stage, *, bfloat16: bool, clip: float | None, gpu: bool
) -> dict[str, Any]:
    """Return DeepSpeed's settings.

    Args:
        config: the recipe's ``parallel:``.
        stage: of ZeRO, from 1.
        bfloat16: whether weights are; the optimizer's are float32 all the same.
        clip: the largest norm of the gradient; None = any.
        gpu: whether there are GPUs; then what is kept on the host is pinned.

    Raises:
        UserError: if ``parallel.deepspeed`` cannot be read, or says what the recipe says.
    """
    zero: dict[str, Any] = {
        "stage": stage,
        "memory_efficient_linear": False,  # it would replace torch's linear for the whole process
    }
    kept = {"device": "cpu", "pin_memory": gpu}
    if config.offload != "none":
        zero |= {"offload_optimizer": kept}
    if config.offload == "all":
        zero |= {"offload_param": kept}
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": clip or 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
        "communication_data_type": "fp32",
        "zero_optimization": zero,
    }
    if bfloat16:
        settings["bf16"] = {"enabled": True, "check_grad_overflow": True}
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
    if stage == 1:
        zero["overlap_comm"] = False  # its gradients are reduced once, at the step
    return _with_own(settings, config.deepspeed)


def _with_own(settings: dict[str, Any], file: str | None) -> dict[str, Any]:
    """Add what an expert's file says."""
    if file is None:
        return settings
    place = f"parallel.deepspeed {file}"
    try:
        own: Mapping[str, Any] = json.loads(Path(file).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise user_error(place, f"it cannot be read: {error}", "write a JSON file") from error
    within: Mapping[str, Any] = own.get("zero_optimization", {}) if isinstance(own, dict) else {}
    if not isinstance(own, dict) or not isinstance(within, dict):
        raise user_error(place, "it holds no map", 'write {"zero_optimization": {...}}')
    taken = sorted(set(own) - SETTABLE) + [
        f"zero_optimization.{k}" for k in sorted(OWN & {*within})
    ]
    if taken:
        found = f"{', '.join(taken)}: the recipe says it, or DeepSpeed has no such key"
        raise user_error(place, found, f"remove it; {', '.join(sorted(SETTABLE))} can be")
    zero = {**settings["zero_optimization"], **within}
    return {**settings, **own, "zero_optimization": zero}


def prepare_deepspeed() -> None:
    """See that DeepSpeed finds its device, builds nothing at the start, and leaves stdout alone."""
    import torch

    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"
    # of torch's functions that DeepSpeed calls; nothing that a user could mend
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    os.environ.setdefault("LOCAL_RANK", "0")
    with quiet():
        import deepspeed
        import deepspeed.ops

        # a communication library for CPUs, compiled when it is first asked for: minutes, and a
        # killed build leaves a lock at which every later start hangs
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    for handler in logging.getLogger("DeepSpeed").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)


@contextmanager
def quiet() -> Iterator[None]:
    """In it, what is printed goes to stderr."""
    with redirect_stdout(sys.stderr):
        yield
