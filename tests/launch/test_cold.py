"""Starts as a user has them, from nothing: by ftkit, torchrun and the deepspeed command."""

from __future__ import annotations

import os
import pty
import re
import socket
import sys
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.conftest import run
from tests.launch.conftest import FTKIT, ROOT
from tests.parallel.runs import metrics

EXACT = {"prompts": 7, "steps": 3, "micro_tokens": 40, "optimizer": "sgd"}
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "ftkit")
DEEPSPEED = (sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators", "2")
BIN = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
"""The deepspeed command starts programs by their names."""


@pytest.fixture(scope="module")
def alone(files, tmp_path_factory):
    """A recipe and what it gives on one process."""
    folder = tmp_path_factory.mktemp("alone")
    path = folder / "alone.yaml"
    tree = {
        "run": str(folder / "run"),
        "method": {"name": "sft"},
        "data": {"train": str(files / "train.jsonl"), "max_length": 32},
        "model": {
            "init": {"architecture": "qwen2", "hidden_size": 32, "num_hidden_layers": 1},
            "tokenizer": str(files / "tokenizer"),
        },
        "train": {**EXACT, "lr": 1e-2, "threads": 1},
        "parallel": {"zero": 0},  # an engine takes seconds to be imported
    }
    path.write_text(yaml.safe_dump(tree))
    assert run(path) == 0
    return path, metrics(folder / "run")


@pytest.fixture
def same(alone, start, tmp_path):
    """Return a function that trains by a command, and compares with one process."""

    def check(*command, more=(), **environment):
        path, wanted = alone
        words = [*command, "train", path, f"run={tmp_path}/run", *more]
        started = start(*words, mark=f"run={tmp_path}/run", **environment)
        assert started.wait() == 0, started.said + started.errors
        for mine, its in zip(wanted, metrics(tmp_path / "run"), strict=True):
            assert its == pytest.approx(mine, rel=2e-4, abs=2e-6)
        assert "FutureWarning" not in started.errors
        assert started.said.count("all steps are done after step 3") == 1
        return started

    return check


@pytest.mark.netns  # beside those on two namespaces, which need root
def test_two_machines_of_a_hostfile(same, far, tmp_path):
    met = "text=$(echo \"$text\" | sed 's#MASTER=240.0.0.1#MASTER=127.0.0.1#')\n"
    for host in ("240.0.0.1", "240.0.0.2"):
        (far / host).write_text(met)
    hosts = tmp_path / "hosts"
    hosts.write_text("240.0.0.1 slots=1\nme@240.0.0.2 slots=1\n")
    assert same(*FTKIT, more=("--hostfile", hosts)).errors == ""


def test_torchrun(same):
    assert same(*TORCHRUN).errors == ""


def test_deepspeed(same):
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    words = (*DEEPSPEED, "--master_port", port, "--module", "ftkit")
    same(*words, more=["parallel.zero=1"], DS_ACCELERATOR="cpu", **BIN)


def test_ctrl_c_in_a_terminal(alone, tmp_path):
    path, _ = alone
    folder = tmp_path / "run"
    pid, terminal = pty.fork()
    if pid == 0:
        more = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
        words = [*FTKIT, "train", str(path), "--gpus", "2", f"run={folder}", "train.steps=1000000"]
        os.execve(words[0], words, {**os.environ, **more})
    shown, pressed = b"", False
    try:
        while True:
            shown += os.read(terminal, 4096)
            if not pressed and b"loss" in shown:
                pressed = os.write(terminal, b"\x03") == 1
    except OSError:  # it has ended, and the terminal with it
        os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130, shown
    assert "━" in shown.decode()
    (step,) = re.findall(rb"SIGINT: stopped with a checkpoint after step (\d+)", shown)
    assert (folder / "checkpoints" / f"step-{int(step):06d}" / "COMPLETE").is_file()
    assert b"Traceback" not in shown
    assert b"Warning" not in shown
