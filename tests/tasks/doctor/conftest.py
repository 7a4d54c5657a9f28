"""Made-up machines: programs that print what real ones do, and folders of a kernel."""

from __future__ import annotations

import os

import pytest

from ftkit.tasks.doctor.finding import Later

TOPOLOGY = (
    "\t\x1b[4mGPU0\tGPU1\tGPU2\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m\n"
    "GPU0\t X \tNV18\tSYS\tPIX\t0-47\t0\t\tN/A\n"
    "GPU1\tNV18\t X \tSYS\tSYS\t0-47\t0\t\tN/A\n"
    "GPU2\tSYS\tSYS\t X \tSYS\t48-95\t1\t\tN/A\n"
    "NIC0\tPIX\tSYS\tSYS\t X \t\t\t\t\n\nLegend:\n\n  X    = Self\n"
)
GPUS = (
    "0, NVIDIA H100 80GB HBM3, 81559, 4, 9.0, 550.54.15\n"
    "1, NVIDIA H100 80GB HBM3, 81559, 40779, 9.0, 550.54.15\n"
    "2, Tesla V100-SXM2-32GB, 32768, 0, 7.0, 550.54.15\n"
)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Return a function that puts a shell script on PATH, before all others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def put(name, script):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return put


@pytest.fixture
def nvidia_smi(program, tmp_path):
    """A program that lists three GPUs."""
    (tmp_path / "topology").write_text(TOPOLOGY)
    (tmp_path / "gpus").write_text(GPUS)
    program(
        "nvidia-smi", f'case "$1" in topo) cat {tmp_path}/topology;; *) cat {tmp_path}/gpus;; esac'
    )


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return a function that puts a module in the place of every other of its name."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def put(name, text):
        (folder / f"{name}.py").write_text(text)

    return put


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Return a function that installs a package, in so far as its metadata says so."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def put(name, version, *lines):
        own = folder / f"{name}-{version}.dist-info"
        own.mkdir()
        text = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines])
        (own / "METADATA").write_text(text + "\n")

    return put


def torch_says(**known):
    """What torch says of itself."""
    told = {"version": "2.13.0", "cuda": "12.8", "hip": None, "nccl": "2.27.3", "gpus": []}
    told |= {"bfloat16": False, "threads": 3, "warnings": [], **known}
    return Later(lambda: told)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def by_what(findings):
    """Findings by what they are of; each of another thing."""
    listed = list(findings)
    found = {finding.what: finding for finding in listed}
    assert len(found) == len(listed)
    return found
