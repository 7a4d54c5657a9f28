"""Two machines for real, each a network namespace (``make test-nodes``, as root)."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest

from tests.end_to_end.conftest import run
from tests.launch.conftest import FTKIT
from tests.launch.namespaces import Machines
from tests.parallel.runs import SHARDED, metrics

pytestmark = pytest.mark.netns

ENDLESS = {"steps": 10**6, "optimizer": "sgd"}
LIMIT = 20.0
"""Seconds in which nothing is left once something has died."""


@pytest.fixture(scope="module")
def machines():
    made = Machines()
    try:
        made.make()
        yield made
    finally:
        made.remove()


@pytest.fixture
def launch(machines, start, tmp_path, files, monkeypatch):
    """Return a function that starts ``ftkit train`` on both, from the first of them."""
    hosts = tmp_path / "hosts"
    hosts.write_text("".join(f"{machine.address}\n" for machine in machines.all))

    def make(path, *more, outside=False, named=False):
        if named:
            hosts.write_text("".join(f"{machine.name}\n" for machine in machines.all))
        words = [*FTKIT, "train", path, "--hostfile", hosts, *more]
        command = words if outside else machines.first.command(*words)
        return start(*command, mark=str(path), FTKIT_SSH=machines.ssh)

    return make


TIMEOUT = 10.0
"""Seconds that no phase of a start lasts, on a busy machine too."""


def going_on(tmp_path, name="run"):
    """A function that says whether some steps are done."""
    path = tmp_path / name / "metrics.jsonl"
    return lambda: path.is_file() and path.read_bytes().count(b"\n") > 3


@pytest.mark.parametrize(
    ("zero", "ranks", "how"),
    [(0, 1, {}), (1, 2, {"named": True}), (3, 1, {"outside": True}), (3, 2, {})],
)
def test_two_machines_give_the_numbers_of_one(launch, recipe, zero, ranks, how, *, tmp_path):
    (tmp_path / "deepspeed.json").write_text(json.dumps(SHARDED))
    exact = {"prompts": 7, "steps": 3, "micro_tokens": 40, "optimizer": "sgd"}
    sections = {"train": exact, "eval": {"every": None, "limit": 7}}
    assert run(recipe("one", **sections)) == 0
    parallel = {"zero": zero, "deepspeed": str(tmp_path / "deepspeed.json") if zero else None}
    started = launch(recipe("two", parallel=parallel, **sections), "--gpus", ranks, **how)
    assert started.wait() == 0, started.errors
    assert started.errors == ""
    for mine, its in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        assert its == pytest.approx(mine, rel=2e-4, abs=2e-6)
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["ranks"] == 2 * ranks


def test_a_signal_to_the_launcher_stops_all_ranks_after_the_same_step(launch, recipe, tmp_path):
    started = launch(recipe(train=ENDLESS, checkpoint={"every": 10**6}), "--gpus", 2)
    started.until(going_on(tmp_path))
    started.process.send_signal(signal.SIGTERM)
    assert started.wait(LIMIT) == 128 + signal.SIGTERM, started.errors
    assert started.errors == ""
    (step,) = re.findall(r"SIGTERM: stopped with a checkpoint after step (\d+)", started.said)
    assert (tmp_path / "run" / "checkpoints" / f"step-{int(step):06d}" / "COMPLETE").is_file()
    assert metrics(tmp_path / "run")[-1]["step"] == int(step)


@pytest.mark.parametrize(
    ("who", "told"),
    [
        ({"FTKIT_NODE": "0"}, r"192\.168\.77\.1: ftkit was killed by SIGKILL"),
        ({"FTKIT_NODE": "1"}, r"192\.168\.77\.2: the connection was lost, or ftkit was killed"),
        ({"RANK": "0"}, r"rank 0 was killed by SIGKILL"),
        ({"RANK": "1"}, r"rank 1 was killed by SIGKILL"),
        ({}, ""),
    ],
    ids=["first-launcher", "second-launcher", "rank-0", "rank-1", "launcher-of-all"],
)
def test_whoever_is_killed_nothing_is_left_on_either(launch, recipe, tmp_path, who, told):
    started = launch(recipe(train=ENDLESS))
    started.until(going_on(tmp_path))
    found = started.processes(**who) if who else [started.process.pid]
    os.kill(found[0], signal.SIGKILL)
    status = started.wait(LIMIT)
    assert status == (1 if who else -signal.SIGKILL)
    assert re.search(told, started.errors), started.errors
    assert "Traceback" not in started.errors
    assert ("want of memory" in started.errors) == ("RANK" in who)


def by_hand(machines, start, path, number, *, port=29511, **more):
    """Start the launcher of one node, which is told where the first is."""
    told = {"NODE": number, "NODES": 2, "MASTER": f"{machines.first.address}:{port}"}
    machine = machines.all[number]
    return start(
        *machine.command(*FTKIT, "train", path),
        mark=str(path),
        name=f"node-{number}",
        **{f"FTKIT_{name}": str(value) for name, value in told.items()},
        **more,
    )


def test_a_cable_that_is_pulled_out_is_found_on_both_sides(machines, start, recipe, tmp_path):
    path = recipe(train=ENDLESS, parallel={"timeout": TIMEOUT})
    nodes = [by_hand(machines, start, path, number) for number in (0, 1)]
    nodes[0].until(going_on(tmp_path))
    machines.plug("down")
    try:
        for node in nodes:
            assert node.process.wait(LIMIT + TIMEOUT) == 1, node.errors
    finally:
        machines.plug("up")
    for node, other in zip(nodes, reversed(machines.all), strict=True):
        assert "nothing has got on for" in node.errors
        assert other.name in node.errors
        assert "Traceback" not in node.errors
    assert not nodes[0].processes()
