"""How many GPUs a machine has, and how many ranks."""

from __future__ import annotations

import pytest

from ftkit.core.errors import UserError
from ftkit.launch import devices
from ftkit.launch.devices import gpus, ranks_here


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that makes an nvidia-smi, and the environment in which it is found."""
    monkeypatch.setattr(devices, "DRIVER", tmp_path / "driver")

    def make(count, status=0, **environment):
        lines = "".join(
            f"echo 'GPU {n}: NVIDIA H100 (UUID: GPU-{n})'; echo '  MIG 1g.10gb Device 0: x'\n"
            for n in range(count)
        )
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{lines}exit {status}\n")
        program.chmod(0o755)
        return {"PATH": str(tmp_path), **environment}

    return make


def test_those_that_nvidia_smi_lists(machine):
    assert gpus(machine(4)) == 4
    assert gpus({"PATH": ""}) == 0


@pytest.mark.parametrize(
    ("visible", "count"),
    [
        ("", 0),
        ("-1", 0),
        ("2", 1),
        ("0,1", 2),
        ("0, 3", 2),
        ("0,1,9,2", 2),  # CUDA stops at the first that is not there
        ("0,-1,2", 1),
        ("0,1,2,3,4,5,6,7", 4),
        ("GPU-1,GPU-2", 2),
        ("MIG-1", 1),
    ],
)
def test_those_that_are_visible(machine, visible, count):
    assert gpus(machine(4, CUDA_VISIBLE_DEVICES=visible)) == count


def test_none_is_visible_where_none_is(machine):
    assert gpus(machine(0, CUDA_VISIBLE_DEVICES="0,1")) == 0


def test_where_nvidia_smi_fails_or_is_not_there_the_driver_is_asked(machine, tmp_path):
    for number in range(2):
        (tmp_path / "driver" / f"0000:{number}").mkdir(parents=True)
    assert gpus(machine(4, status=9)) == 2
    assert gpus({"PATH": ""}) == 2
    assert gpus(machine(4)) == 4


def test_a_rank_a_gpu_or_as_many_as_asked_for(machine):
    four = machine(4)
    assert [ranks_here(wanted, four) for wanted in (None, 1, 4)] == [4, 1, 4]
    none = {"PATH": ""}
    assert [ranks_here(wanted, none) for wanted in (None, 3)] == [1, 3]


def test_fewer_gpus_than_asked_for(machine):
    with pytest.raises(UserError, match=r"^--gpus 4: there are 2 GPUs .*; write --gpus 2,"):
        ranks_here(4, machine(2))
    with pytest.raises(UserError, match=r"^--gpus 2: there is 1 GPU "):
        ranks_here(2, machine(4, CUDA_VISIBLE_DEVICES="3"))
