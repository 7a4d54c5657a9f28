"""What is found of versions, devices, networks, disks and builds."""

from __future__ import annotations

import os
import resource
import shlex
import socket
import sys
from collections import Counter

import pytest
from torch.utils import cpp_extension
from torch.utils.file_baton import FileBaton

from ftkit.tasks.doctor import builds, devices, network, storage, versions
from ftkit.tasks.doctor.finding import Later
from tests.tasks.doctor.conftest import TOPOLOGY, by_what, torch_says, write

# versions


def test_versions_are_compared_with_what_ftkit_asks_for(distribution):
    distribution(
        "ftkit",
        "9",
        "Requires-Python: >=3.99",
        "Requires-Dist: torch>=2.11",
        "Requires-Dist: peft<0.22,>=0.21",
        "Requires-Dist: transformers>=5.17",
        "Requires-Dist: nothing-such>=1",
        "Requires-Dist: numpy>=1",
        'Requires-Dist: trl==1.16.0; extra == "bench"',
    )
    distribution("peft", "0.20.1")
    distribution("transformers", "5.18.0.dev0")
    found = by_what(versions.libraries())
    assert found["peft"].level == "problem"
    assert found["peft"].found == "0.20.1, and ftkit asks for <0.22,>=0.21"
    assert found["peft"].remedy == "pip install 'peft<0.22,>=0.21'"
    assert (found["transformers"].level, found["transformers"].found) == ("ok", "5.18.0.dev0")
    assert found["nothing-such"].found == "not installed"
    assert "numpy" not in found
    assert "trl" not in found
    assert by_what(versions.python())["Python"].level == "problem"


def test_torch_is_told_with_its_build(distribution):
    distribution("ftkit", "9", "Requires-Dist: torch>=2.11")
    distribution("torch", "2.13.0+cu128")
    (told,) = versions.of_torch(torch_says(version="2.13.0+cu128"))
    assert told.level == "ok"
    assert told.found == "2.13.0+cu128, built with CUDA 12.8, NCCL 2.27.3"
    (told,) = versions.of_torch(torch_says(cuda=None, nccl=None))
    assert told.found == "2.13.0, built with no CUDA"
    (told,) = versions.of_torch(torch_says(cuda=None, hip="6.4"))
    assert "built with ROCm 6.4" in told.found


def test_a_torch_that_is_too_old_is_a_problem(distribution):
    distribution("ftkit", "9", "Requires-Dist: torch>=2.11")
    distribution("torch", "2.9.1")
    (told,) = versions.of_torch(torch_says(version="2.9.1"))
    assert (told.level, told.found) == ("problem", "2.9.1, and ftkit asks for >=2.11")


# devices


def test_gpus_are_told_with_what_they_can(nvidia_smi, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = by_what(devices.gpus(torch_says(gpus=[{"name": "x", "memory": 1}])))
    assert found["driver"].found == "550.54.15"
    assert found["GPU 0"].level == "ok"
    assert found["GPU 0"].found.endswith("79.6 GiB, compute capability 9.0, bfloat16")
    assert found["GPU 1"].level == "note"
    assert found["GPU 1"].found.endswith("39.8 GiB in use")
    assert found["GPU 2"].found.endswith("compute capability 7.0, no bfloat16")
    assert "GPUs in torch" not in found


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"cuda": None}, "its build knows no GPUs"),
        ({"warnings": ["driver too old (found 11040)"]}, "cannot use the GPUs: driver too old"),
    ],
)
def test_gpus_that_torch_cannot_use_are_a_problem(nvidia_smi, monkeypatch, said, words):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = by_what(devices.gpus(torch_says(**said)))
    assert found["GPUs in torch"].level == "problem"
    assert found["GPUs in torch"].found.startswith(words)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = by_what(devices.gpus(torch_says(**said)))
    assert "GPUs in torch" not in found
    assert found["CUDA_VISIBLE_DEVICES"].level == "note"


def test_a_driver_that_does_not_answer_is_a_problem(program):
    program("nvidia-smi", "echo 'NVIDIA-SMI has failed: no driver'; exit 9")
    found = by_what(devices.gpus(torch_says()))
    assert found["nvidia-smi"].level == "problem"
    assert found["nvidia-smi"].found == "status 9: NVIDIA-SMI has failed: no driver"


def test_without_gpus(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    (told,) = devices.gpus(torch_says())
    assert (told.level, told.what) == ("ok", "GPUs")
    (told,) = devices.gpus(torch_says(gpus=[{"name": "MI300X", "memory": 192 * 2**30}]))
    assert (told.what, told.found) == ("GPU 0", "MI300X, 192 GiB")


def test_memory_and_cpus_with_the_limits_of_a_job(tmp_path, monkeypatch):
    write(tmp_path / "proc/meminfo", "MemTotal: 1048576 kB\nMemAvailable: 524288 kB\n")
    (told,) = devices.memory(tmp_path)
    assert (told.level, told.found) == ("ok", "1 GiB, 512 MiB of it free")
    write(tmp_path / "proc/self/cgroup", "0::/jobs/7\n")
    write(tmp_path / "sys/fs/cgroup/jobs/7/memory.max", "max\n")
    write(tmp_path / "sys/fs/cgroup/jobs/memory.max", "268435456\n")
    write(tmp_path / "sys/fs/cgroup/jobs/7/cpu.max", "150000 100000\n")
    assert "a limit of 256 MiB" in next(devices.memory(tmp_path)).found
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    (cpus,) = devices.cpus(torch_says(), tmp_path)
    assert cpus.found.endswith("a quota of 1.5, OMP_NUM_THREADS=2, threads of torch: 3")
    write(tmp_path / "proc/meminfo", "MemTotal: 1048576 kB\nMemAvailable: 1024 kB\n")
    assert next(devices.memory(tmp_path)).level == "note"


# networks


def test_ways_between_gpus_are_counted_once_a_pair(nvidia_smi):
    assert network.ways_between(TOPOLOGY) == Counter({"NV18": 1, "SYS": 2})
    (told,) = network.topology()
    assert told.level == "note"
    assert told.found == "2 pairs by the link between CPUs (SYS); 1 pairs by NVLink (NV18)"
    assert network.ways_between("\tGPU0\tCPU Affinity\nGPU0\t X \t0-7\n") == Counter()


def test_infiniband_ports_are_told(tmp_path):
    (told,) = network.infiniband(tmp_path)
    assert (told.level, told.found) == ("ok", "none")
    for name, state in (("mlx5_0", "4: ACTIVE"), ("mlx5_1", "1: DOWN")):
        port = tmp_path / "sys/class/infiniband" / name / "ports/1"
        write(port / "state", state + "\n")
        write(port / "rate", "400 Gb/sec (4X NDR)\n")
        write(port / "link_layer", "InfiniBand\n")
    found = by_what(network.infiniband(tmp_path))
    assert found["InfiniBand mlx5_0"].level == "ok"
    assert found["InfiniBand mlx5_0"].found == "port 1 active, 400 Gb/sec (4X NDR), InfiniBand"
    assert found["InfiniBand mlx5_1"].level == "note"


KNOWN = {"lo": "127.0.0.1", "eth0": "10.0.0.7", "ib0": "10.1.0.7"}


@pytest.mark.parametrize(
    ("value", "level"),
    [
        ("ib0", "ok"),
        ("ib", "ok"),
        ("=ib", "problem"),
        ("=ib0", "ok"),
        ("^lo,docker", "ok"),
        ("^lo,eth,ib", "problem"),
        ("enp", "problem"),
        ("enp,eth", "ok"),
    ],
)
def test_an_interface_that_is_named_must_be_there(value, level):
    found = by_what(
        network.naming(KNOWN, {"NCCL_SOCKET_IFNAME": value, "GLOO_SOCKET_IFNAME": "lo"})
    )
    assert found["NCCL_SOCKET_IFNAME"].level == level


def test_of_several_interfaces_one_should_be_named():
    (told,) = network.naming(KNOWN, {})
    assert told.level == "note"
    assert told.remedy.endswith("NCCL_SOCKET_IFNAME=eth0 GLOO_SOCKET_IFNAME=eth0")
    assert not list(network.naming({"lo": "127.0.0.1", "eth0": "10.0.0.7"}, {}))


def test_interfaces_ports_and_speeds_of_this_machine(tmp_path):
    assert network.addresses().get("lo") == "127.0.0.1"
    write(tmp_path / "sys/class/net/lo/speed", "100000\n")
    found = by_what(network.interfaces(tmp_path))
    assert found["interface lo"].found == "127.0.0.1, 100 Gbit/s"
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        number = taken.getsockname()[1]
        assert network.port(number).level == "note"
    assert network.port(number).level == "ok"


# disks and limits


def test_each_disk_is_told_once_with_all_that_lies_on_it(tmp_path, monkeypatch):
    where = {"here": tmp_path, "not yet": tmp_path / "a" / "b"}
    (told,) = storage.disks(where)
    assert told.found.endswith("free: here, not yet")
    monkeypatch.setattr(storage, "LITTLE", 2**62)
    assert next(storage.disks(where)).level == "note"


def test_shared_memory_is_a_problem_for_several_ranks(tmp_path, monkeypatch):
    assert storage.shared_memory(tmp_path / "none", 2).level == "note"
    monkeypatch.setattr(storage, "SHARED", 2**62)
    assert storage.shared_memory(tmp_path, 1).level == "note"
    told = storage.shared_memory(tmp_path, 2)
    assert told.level == "problem"
    assert "--shm-size" in told.remedy
    monkeypatch.setattr(storage, "SHARED", 1)
    assert storage.shared_memory(tmp_path, 2).level == "ok"


def test_few_open_files_are_told(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        (told,) = storage.limits(tmp_path)
        assert told.level == "note"
        assert told.found.startswith("256, ")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# builds


def test_a_lock_that_was_left_is_a_problem_and_stays(tmp_path, monkeypatch):
    """It is the file that torch waits for, where torch looks for it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "my cache"))
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    assert str(builds.extensions()) == cpp_extension.get_default_build_root()
    assert [each.level for each in builds.locks()] == ["ok"]
    folder = cpp_extension._get_build_directory("cpu_adam", verbose=False)
    lock = os.path.join(folder, "lock")  # noqa: PTH118
    assert FileBaton(lock).try_acquire()
    now = os.stat(lock).st_mtime  # noqa: PTH116
    (fresh,) = builds.locks(now + 10)
    assert (fresh.level, fresh.found) == ("note", f"{lock}, 10 s old")
    (stale,) = builds.locks(now + 2 * 3600)
    assert stale.level == "problem"
    assert stale.found.startswith(f"{lock} is 2 hours old")
    assert shlex.split(stale.remedy.split(": ")[1]) == ["rm", lock]
    assert not FileBaton(lock).try_acquire()


def test_a_lock_in_a_folder_that_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    write(tmp_path / "cpu_adam" / "lock", "")
    (told,) = builds.locks((tmp_path / "cpu_adam" / "lock").stat().st_mtime + 301)
    assert told.level == "problem"


def test_what_builds_need(tmp_path, monkeypatch, program):
    program("c++", "")
    program("ninja", "")
    found = by_what(builds.compilers())
    assert found["C++ compiler"].found == str(tmp_path / "bin" / "c++")
    assert found["ninja"].level == "ok"
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("CXX", "my-c++")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    found = by_what(builds.compilers())
    assert (found["C++ compiler"].level, found["C++ compiler"].found) == ("note", "none (my-c++)")
    assert found["ninja"].level == "note"
    assert found["ninja"].remedy == f"put its folder on PATH: export PATH={tmp_path / 'bin'}:$PATH"
    (tmp_path / "bin" / "ninja").unlink()
    assert by_what(builds.compilers())["ninja"].found == "none"


def test_where_torch_says_nothing_cpus_are_told_all_the_same(tmp_path):
    def broken():
        raise OSError("gone")

    (told,) = devices.cpus(Later(broken), tmp_path)
    assert told.found.endswith("threads of torch: not known")
