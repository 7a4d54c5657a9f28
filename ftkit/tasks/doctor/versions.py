"""Versions of Python and of libraries, beside what ftkit asks for."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from ftkit import __version__
from ftkit.tasks.doctor.finding import LATER, Finding, Later

if TYPE_CHECKING:
    from packaging.requirements import Requirement

NAMED = ("transformers", "peft", "deepspeed", "datasets")
"""Libraries that are always told."""
OPTIONAL = ("vllm", "bitsandbytes", "tensorboard")
"""Those that only some recipes need."""


def python() -> Iterator[Finding]:
    """Tell the versions of ftkit and Python."""
    from packaging.specifiers import SpecifierSet

    yield Finding("ok", "ftkit", __version__)
    found = f"{platform.python_version()} ({sys.executable})"
    try:
        wanted = metadata.metadata("ftkit")["Requires-Python"] or ""
    except metadata.PackageNotFoundError:
        wanted = ""
    if SpecifierSet(wanted).contains(platform.python_version(), prereleases=True):
        yield Finding("ok", "Python", found)
    else:
        yield Finding("problem", "Python", found, f"ftkit asks for {wanted}")


def libraries() -> Iterator[Finding]:
    """Tell the versions of libraries, each of those that are not as ftkit asks for."""
    asked = requirements()
    if not asked:
        remedy = "install it (pip install .), so that versions can be compared"
        yield Finding("note", "libraries", "ftkit is not installed as a package", remedy)
    right = 0
    for name in (*NAMED, *sorted(asked.keys() - {*NAMED, "torch"})):
        wrong = _against(name, asked.get(name))
        right += wrong is None
        if wrong is not None:
            yield wrong
        elif name in NAMED:
            yield Finding("ok", name, str(version(name)))
    named = len([name for name in NAMED if version(name)])
    if asked and right > named:
        yield Finding("ok", "further libraries", f"{right - named} are as ftkit asks for")
    for name in OPTIONAL:
        yield Finding("ok", name, version(name) or "not installed; only some recipes need it")


def of_torch(torch: Later[dict[str, Any]]) -> Iterator[Finding]:
    """Tell torch's version and build; whether it can be imported at all.

    Args:
        torch: what it says of itself (``inside.torch_itself``).
    """
    asked = requirements().get("torch")
    installed = version("torch")
    if installed is None:
        yield Finding("problem", "torch", "not installed", f"pip install '{asked or 'torch'}'")
        return
    try:
        told = torch.wait(LATER)
    except Exception as error:  # whatever it says, it is of no use
        found = f"{installed} cannot be imported: {error}"
        yield Finding("problem", "torch", found, "install it anew, and look at LD_LIBRARY_PATH")
        return
    build = f"CUDA {told['cuda']}" if told["cuda"] else "no CUDA"
    build = f"ROCm {told['hip']}" if told["hip"] else build
    nccl = f", NCCL {told['nccl']}" if told["nccl"] else ""
    wrong = _against("torch", asked)
    yield wrong or Finding("ok", "torch", f"{told['version']}, built with {build}{nccl}")


def requirements() -> Mapping[str, Requirement]:
    """Return what ftkit asks for without extras, by name; nothing if it is not installed."""
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires("ftkit") or []
    except metadata.PackageNotFoundError:
        return {}
    every = map(Requirement, lines)
    return {r.name: r for r in every if r.marker is None or r.marker.evaluate({"extra": ""})}


def version(name: str) -> str | None:
    """Return a library's version; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _against(name: str, asked: Requirement | None) -> Finding | None:
    """Say what is wrong with the version of a library; None if nothing is."""
    installed = version(name)
    if installed is None:
        return Finding("problem", name, "not installed", f"pip install '{asked or name}'")
    if asked is None or asked.specifier.contains(installed, prereleases=True):
        return None
    found = f"{installed}, and ftkit asks for {asked.specifier}"
    return Finding("problem", name, found, f"pip install '{asked}'")
