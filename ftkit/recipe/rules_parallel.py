"""The rules of ``parallel:``, which stages of ZeRO serve which run, and of ``model.quantize``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ftkit.core.errors import Fault

if TYPE_CHECKING:
    from ftkit.recipe.rules import Said


def faults_parallel(said: Said) -> Iterator[Fault]:
    """Yield what cannot run as ``parallel:`` asks."""
    zero, offload = said.get("parallel.zero"), said.get("parallel.offload", "none")
    if said.get("method.name") == "trpo":
        if zero in {1, 2, 3}:
            found = f"{zero}, and trpo has no optimizer's state to share, and needs whole weights"
            yield Fault("parallel.zero", found, "write 0, or leave it out")
        if offload != "none":
            found = f"{offload}, and trpo has no optimizer's state to keep elsewhere"
            yield Fault("parallel.offload", found, "write none, or leave it out")
        return
    if offload == "optimizer" and zero == 0:
        found = "optimizer, and with zero: 0 no engine could keep it elsewhere"
        yield Fault("parallel.offload", found, "write zero: 1, 2 or 3, or offload: none")
    if offload == "all" and said.says("model.quantize"):
        found = "all, and weights in 4 bits (model.quantize) stay where they compute"
        yield Fault("parallel.offload", found, "write optimizer or none")
    elif offload == "all" and zero != 3:  # noqa: PLR2004 (the stage)
        said_of = "1 where nothing is written" if zero is None else str(zero)
        found = f"all, and only zero: 3 keeps shares of weights (it is {said_of})"
        yield Fault("parallel.offload", found, "write zero: 3, or offload: optimizer")


def faults_quantized(said: Said) -> Iterator[Fault]:
    """Yield what cannot go with frozen weights in 4 bits."""
    if not said.says("model.quantize"):
        return
    form = said.get("model.quantize")
    if said.says("model.init"):
        found = f"{form}, and random weights are not worth freezing"
        yield Fault("model.quantize", found, "give weights as model.path, or remove it")
    elif not isinstance(said.get("model.lora"), Mapping):  # a map may be empty: all defaults
        found = f"{form}, and weights in 4 bits cannot be trained, only adapters on them"
        yield Fault("model.quantize", found, "write model.lora: {r: 16}, or remove it")
    if said.get("parallel.zero") == 3:  # noqa: PLR2004 (the stage)
        found = "3, and weights in 4 bits (model.quantize) are not cut into shares"
        yield Fault("parallel.zero", found, "write 2 or less; they are an eighth of float32's")
    if said.get("sample.engine") == "vllm":
        found = "vllm, which cannot take over weights in 4 bits (model.quantize)"
        yield Fault("sample.engine", found, "write hf, or model.quantize: null")
