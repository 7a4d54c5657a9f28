"""What machines say of themselves before a run, and what is refused then."""

from __future__ import annotations

import os
import shlex
import socket
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from ftkit.cli import app
from ftkit.core.errors import UserError
from ftkit.launch import machine
from ftkit.launch.hosts import Host
from ftkit.launch.machine import ask, is_here

ONE, OTHER = "240.0.0.1", "240.0.0.2"
"""Addresses that no machine has."""
RECIPE = {
    "run": "run",
    "method": {"name": "sft"},
    "data": {"train": "rows.jsonl"},
    "model": {"path": "org/model"},
    "train": {"lr": 1e-4},
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A recipe and a hostfile of two machines, in this directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    Path("r.yaml").write_text(yaml.safe_dump(RECIPE))
    Path("rows.jsonl").write_text('{"prompt": "1+1=", "completion": "2"}\n')
    Path("hosts").write_text(f"{ONE}\n{OTHER}\n")
    return tmp_path


def refused(*arguments, hostfile=("--hostfile", "hosts")):
    result = CliRunner().invoke(app, ["train", "r.yaml", *hostfile, *map(str, arguments)])
    assert isinstance(result.exception, UserError), result.output
    return [str(fault) for fault in result.exception.faults]


def gpus(far, host, count):
    """Give a machine GPUs: its own nvidia-smi comes first on its PATH."""
    bin_ = far / f"bin-{host}"
    bin_.mkdir()
    (bin_ / "nvidia-smi").write_text(f"#!/bin/sh\nseq {count} | sed 's/.*/GPU &: x/'\n")
    (bin_ / "nvidia-smi").chmod(0o755)
    (far / host).write_text(f"text=$(echo \"$text\" | sed 's#PATH=#PATH={bin_}:#')\n")


def test_each_is_asked_at_once(far):
    found = ask([Host(ONE), Host(f"me@{OTHER}")], None)
    assert [each.gpus for each in found] == [0, 0]
    assert all(each.port in range(20000, 32000) for each in found)
    asked = (far / "asked").read_text()
    assert asked.count(f"cd {Path.cwd()}") == 2
    assert f"me@{OTHER} exec /bin/sh -c " in asked


def test_a_folder_whose_name_a_shell_would_take_apart(far, tmp_path, monkeypatch):
    odd = tmp_path / "it's $HOME; a\"b"
    odd.mkdir()
    monkeypatch.chdir(odd)
    (found,) = ask([Host(ONE)], None)
    assert found.gpus == 0


def test_all_that_cannot_be_reached_are_told_with_what_ssh_says(far):
    Path("hosts").write_text("gone1\n240.0.0.1\nme@gone2\n")
    told = refused()
    assert [each.partition(":")[0] for each in told] == ["gone1", "me@gone2"]
    assert "it cannot be reached: ssh: connect to host gone1 port 22: No route to host" in told[0]
    assert "me@gone2 true` works without a password" in told[1]


def test_a_machine_that_does_not_answer(far, monkeypatch):
    monkeypatch.setattr(machine, "LIMIT", 0.2)
    (far / ONE).write_text("exec sleep 9\n")
    with pytest.raises(UserError, match=r"it cannot be reached: no answer within 0 s"):
        ask([Host(ONE)], None)


def test_no_ssh(monkeypatch):
    monkeypatch.setenv("FTKIT_SSH", "no-such-ssh -p 2222")
    assert refused() == [
        "no-such-ssh: there is no such program, and other machines need it; "
        "install it, or name another program by FTKIT_SSH"
    ]


def test_what_is_not_the_same_on_each(far):
    (far / ONE).write_text('text=$(echo "$text" | sed "s#cd [^ ]*#cd /no/such/folder#")\n')
    (far / OTHER).write_text(f'text=$(echo "$text" | sed "s#{sys.executable}#/no/python#g")\n')
    assert refused() == [
        f"{ONE}: there is no folder {Path.cwd()}; "
        "all machines need the recipe and its files under the same names",
        f"{OTHER}: there is no {sys.executable}; "
        "install Python and ftkit under the same name on all machines",
    ]


def test_ftkit_is_not_there_or_another_one(far):
    hidden = 'text=$(echo "$text" | sed "s#ftkit.launch.machine#ftkit.no.such#")\n'
    (far / ONE).write_text(hidden)
    (far / OTHER).write_text('echo "Welcome!"; exit 0\n')
    older = '{"version": "0.0.1", "gpus": 0, "port": 1}'
    (far / "240.0.0.3").write_text(f"echo '{older}'; exit 0\n")
    Path("hosts").write_text(f"{ONE}\n{OTHER}\n240.0.0.3\n")
    told = refused()
    assert told[2].startswith("240.0.0.3: it has ftkit 0.0.1, and here is ")
    assert told[0].startswith(f"{ONE}: ftkit does not start there: {sys.executable}: Error while")
    assert told[1].startswith(f"{OTHER}: its answer was not understood: 'Welcome!")


def test_what_a_shell_says_first_does_not_matter(far):
    (far / ONE).write_text('echo "Welcome!"; echo "last login: yesterday" >&2\n')
    assert len(ask([Host(ONE)], None)) == 1


def test_fewer_gpus_than_asked_for_on_some(far):
    gpus(far, ONE, 4)
    gpus(far, OTHER, 2)
    few = f"{OTHER}: 4 GPUs are asked for, and there are 2 GPUs"
    (told,) = refused("--gpus", 4)
    assert told.startswith(few)
    assert "write --gpus 2" in told
    Path("hosts").write_text(f"{ONE} slots=4\n{OTHER} slots=4\n")
    assert refused()[0].startswith(few)


def test_machines_with_different_numbers_of_gpus(far):
    gpus(far, ONE, 4)
    gpus(far, OTHER, 2)
    (told,) = refused()
    assert f"machines have different numbers of GPUs: {ONE} 4, {OTHER} 2; write --gpus 2" in told


def test_a_machine_without_gpus_among_others(far):
    gpus(far, ONE, 4)
    (told,) = refused("--gpus", 2)
    assert told.startswith(f"{OTHER}: 2 GPUs are asked for, and there are 0 GPUs")
    assert told.endswith("take it out of the hostfile")


def test_a_port_that_is_in_use_on_the_first(far):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (told,) = refused("--port", port)
    assert told == f"{ONE}:{port}: the port is in use; give another one: --port N"


def test_a_port_that_is_in_use_here():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (told,) = refused("--gpus", 2, "--port", port, hostfile=())
    assert told == f"127.0.0.1:{port}: the port is in use; give another one: --port N"


def test_nodes_without_machines_and_machines_that_are_too_few():
    assert refused("--nodes", 2, hostfile=())[0].startswith("--nodes 2: nothing says which")
    assert refused("--nodes", 3)[0].startswith("--hostfile hosts: 3 machines are asked for")


def test_a_rank_starts_no_ranks(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    (told,) = refused("--gpus", 2)
    assert told.startswith("--gpus 2 --hostfile hosts: this process is one of several already")


def test_this_machine_by_any_of_its_names():
    assert all(is_here(Host(name)) for name in ("localhost", "me@127.0.0.1", socket.gethostname()))
    assert not is_here(Host(ONE))
    assert not is_here(Host("no-such-machine.invalid"))


def test_a_secret_is_on_no_command_line(far, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    ask([Host(ONE)], None)
    assert "hf_secret" not in (far / "asked").read_text()
    assert shlex.quote(f"PYTHONPATH={os.environ['PYTHONPATH']}") in (far / "asked").read_text()
