"""The machines of a run while it runs: a shell's text on each, in place of the launcher."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer

import pytest

from ftkit.launch import nodes, told
from ftkit.launch.hosts import Host
from ftkit.launch.nodes import Nodes

HOSTS = [Host("240.0.0.1"), Host("me@240.0.0.2")]
SHELL = "/bin/sh"


@pytest.fixture(autouse=True)
def quickly(far, tmp_path, monkeypatch):
    monkeypatch.setattr(nodes, "SPARE", 0.3)
    monkeypatch.setattr(nodes, "GRACE", 1.0)
    monkeypatch.chdir(tmp_path)


def on_each(text, *, names=()):
    """Nodes that run this text; ``$FTKIT_NODE`` says which of them it is."""
    return Nodes(HOSTS, 29500, [SHELL, "-c", text], names)


def test_all_is_well():
    assert on_each('exit "$(($FTKIT_NODE * 0))"').run() == 0


def test_each_is_told_who_it_is(tmp_path):
    text = 'echo "$FTKIT_NODE of $FTKIT_NODES at $FTKIT_MASTER in $(pwd)" >"node-$FTKIT_NODE"'
    assert on_each(text).run() == 0
    for number in range(2):
        told_ = (tmp_path / f"node-{number}").read_text()
        assert told_ == f"{number} of 2 at 240.0.0.1:29500 in {tmp_path}\n"


def test_a_first_machine_by_an_address_of_ipv6():
    (line, _) = Nodes([Host("fd00::1"), Host("b")], 29500, [SHELL]).lines()
    assert "FTKIT_MASTER=[fd00::1]:29500" in line


def test_variables_come_by_standard_input_and_not_by_arguments(tmp_path, monkeypatch, far):
    for name in ("HF_TOKEN", "JUDGE", "OTHER", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, f"value of {name}")
    monkeypatch.setenv("FTKIT_SENT", "OTHER, NOT_SET")
    assert on_each('head -n 1 >"node-$FTKIT_NODE"; env >>far/asked', names=["JUDGE"]).run() == 0
    sent = json.loads((tmp_path / "node-1").read_text())
    assert {name: sent[name] for name in ("HF_TOKEN", "JUDGE", "OTHER")} == {
        name: f"value of {name}" for name in ("HF_TOKEN", "JUDGE", "OTHER")
    }
    assert not sent.keys() & {"CUDA_VISIBLE_DEVICES", "FTKIT_NODE", "LD_LIBRARY_PATH", "NOT_SET"}
    asked = [line for line in (far / "asked").read_text().splitlines() if "exec env" in line]
    assert len(asked) == 2
    assert not any("value of HF" in line or "value of J" in line for line in asked)
    assert all("value of LD_LIBRARY_PATH" in line for line in asked)


@pytest.mark.parametrize(
    ("first", "second", "status", "said"),
    [
        ("exit 1", "exit 0", 1, ""),
        ("exit 1", "sleep 0.1; exit 2", 2, ""),
        ("exit 143", "sleep 0.1; exit 143", 143, ""),
        ("kill -9 $$", "exit 0", 1, "240.0.0.1: ftkit was killed by SIGKILL\n"),
        ("exit 0", "exit 255", 1, "me@240.0.0.2: the connection was lost"),
        ("exit 0", "exit 137", 137, "me@240.0.0.2: ftkit was killed there by SIGKILL\n"),
        ("exit 3", "read -r x; read -r x", 3, "me@240.0.0.2: ended, since the run was over\n"),
    ],
)
def test_how_machines_end_is_how_the_run_ends(capfd, first, second, status, said):
    assert on_each(f'[ "$FTKIT_NODE" = 0 ] && {{ {first}; }} || {{ {second}; }}').run() == status
    assert capfd.readouterr().err.startswith(said)
    assert not said or capfd.readouterr().err.count("\n") <= 1


def test_signals_are_handed_on_and_the_handlers_given_back(tmp_path):
    text = 'read -r env; read -r number; echo "$number" >"node-$FTKIT_NODE"; exit $((128 + number))'
    before = signal.getsignal(signal.SIGTERM)
    Timer(0.3, os.kill, [os.getpid(), signal.SIGTERM]).start()
    assert on_each(text).run() == 143
    assert {(tmp_path / f"node-{n}").read_text() for n in (0, 1)} == {"15\n"}
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_third_ctrl_c_waits_for_nobody(capfd):
    for after in (0.2, 0.3, 0.4):
        Timer(after, os.kill, [os.getpid(), signal.SIGINT]).start()
    begin = time.monotonic()
    assert on_each("exec sleep 9 <&-").run() == 130
    assert time.monotonic() - begin < 4
    assert "240.0.0.1, me@240.0.0.2: ended" in capfd.readouterr().err


def test_the_end_of_the_launcher_is_the_end_of_standard_input(tmp_path, far):
    code = (
        "from ftkit.launch.nodes import Nodes; from ftkit.launch.hosts import Host;"
        "Nodes([Host('240.0.0.1')], 1, ['/bin/sh', '-c', 'cat; touch ended']).run()"
    )
    launcher = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    until((far / "asked").is_file)
    launcher.kill()
    launcher.wait()
    until((tmp_path / "ended").is_file)


def until(holds, seconds=20):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_machine_takes_its_variables_and_leaves_what_follows(monkeypatch):
    read, write = os.pipe()
    os.write(write, told.line_of((), {"HF_HOME": "there"}) + b"15\n")
    monkeypatch.setattr(told.os, "read", lambda _, count: REAL_READ(read, count))
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setenv("HF_HOME", "here")
    monkeypatch.setenv("FTKIT_NODE", "1")
    told.hear()
    assert os.environ["HF_HOME"] == "there"
    assert REAL_READ(read, 9) == b"15\n"


REAL_READ = os.read
