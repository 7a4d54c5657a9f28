"""The memory that there is: of GPUs, of the host, or what is said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ftkit.core.errors import UserError
from ftkit.plan import machine
from ftkit.plan.machine import GIB, machine_of


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Return a function that puts a program called nvidia-smi first in the path."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def write(script):
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)

    return write


TWO = "echo 81559; echo 40960"


def test_gpus_are_those_of_nvidia_smi(tools):
    tools(TWO)
    found = machine_of(None, None)
    assert (found.kind, found.processes, found.memory) == ("cuda", 2, 40960 * 2**20)
    assert found.host is not None
    assert machine_of(1, None).memory == 81559 * 2**20
    assert machine_of(8, None).processes == 8  # more of the same


@pytest.mark.parametrize("script", ["exit 9", "echo No devices were found", "kill $$"])
def test_a_tool_that_shows_none_means_no_gpu(tools, script):
    tools(script)
    found = machine_of(None, None)
    assert (found.kind, found.processes) == ("cpu", 1)


def test_without_gpus_processes_share_the_host(tools, monkeypatch):
    monkeypatch.setattr(machine, "host_memory", lambda: 12 * GIB)
    assert machine_of(None, None).memory == 12 * GIB
    three = machine_of(3, None)
    assert (three.kind, three.memory, three.host) == ("cpu", 4 * GIB, 4 * GIB)


def test_what_is_said_goes_before_what_is_here(tools):
    tools(TWO)
    found = machine_of(4, 80)
    assert (found.kind, found.processes, found.memory) == ("cuda", 4, 80 * GIB)
    assert found.host is None


@pytest.mark.parametrize("memory", [0, -1, float("nan"), float("inf")])
def test_memory_is_a_positive_number(memory):
    with pytest.raises(UserError, match=r"--memory: .*; write a number above 0"):
        machine_of(None, memory)


def test_the_host_has_some_memory_and_not_more_than_it_has():
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < machine.host_memory() <= whole


def test_the_limit_of_a_group_holds(monkeypatch):
    read = Path.read_text
    files = {"memory.max": str(3 * GIB), "memory.current": str(2 * GIB)}
    monkeypatch.setattr(
        Path, "read_text", lambda self, **kw: files.get(self.name) or read(self, **kw)
    )
    assert machine.host_memory() == GIB
    files["memory.max"] = "max"
    assert machine.host_memory() > GIB
