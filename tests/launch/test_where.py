"""Which node this is: of the command, of a launcher or a person, of Slurm."""

from __future__ import annotations

import pytest

from ftkit.core.errors import UserError
from ftkit.launch.where import Where, where

TOLD = {"FTKIT_NODE": "1", "FTKIT_NODES": "3", "FTKIT_MASTER": "n0:29500"}
STEP = {
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_ID": "0",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_LAUNCH_NODE_IPADDR": "192.0.2.7",
}


@pytest.fixture(autouse=True)
def scontrol(tmp_path, monkeypatch):
    """None, unless a test puts one there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "scontrol"


def refused(nodes, port, environment):
    with pytest.raises(UserError) as error:
        where(nodes, port, environment)
    return str(error.value)


def test_alone():
    assert where(None, None, {}) == where(1, None, {}) == Where(0, 1, "127.0.0.1", 0)
    assert where(None, 29500, {}).port == 29500


def test_what_a_launcher_says():
    assert where(None, None, TOLD) == where(3, 29500, TOLD) == Where(1, 3, "n0", 29500)
    newer = {**TOLD, "FTKIT_MASTER": "[fd00::1]:29500"}
    assert where(None, None, newer) == Where(1, 3, "fd00::1", 29500)
    assert where(None, None, {**STEP, **TOLD}).address == "n0"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"FTKIT_NODE": "3"}, "FTKIT_NODE: '3' is none of 3 nodes; set it from 0 to 2"),
        ({"FTKIT_NODE": "-1"}, "FTKIT_NODE: '-1' is none of 3 nodes"),
        ({"FTKIT_NODE": ""}, "FTKIT_NODE: '' is none of 3 nodes"),
        ({"FTKIT_NODES": "two"}, "FTKIT_NODES: 'two' is no number of nodes"),
        ({"FTKIT_NODES": "0"}, "FTKIT_NODES: '0' is no number of nodes"),
        ({"FTKIT_MASTER": "n0"}, "FTKIT_MASTER: 'n0' is no address and port"),
        ({"FTKIT_MASTER": "n0:x"}, "FTKIT_MASTER: 'n0:x' is no address and port"),
        ({"FTKIT_MASTER": "n0:65536"}, "FTKIT_MASTER: 'n0:65536' is no address and port"),
        ({"FTKIT_MASTER": ":29500"}, "FTKIT_MASTER: ':29500' is no address and port"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, said):
    assert said in refused(None, None, {**TOLD, **changes})


def test_all_of_it_at_once():
    told = refused(None, None, {"FTKIT_NODE": "0"}).splitlines()
    assert [each.partition(":")[0] for each in told] == ["FTKIT_NODES", "FTKIT_MASTER"]


def test_the_command_line_may_not_contradict():
    assert "--nodes 2: FTKIT_NODES says 3" in refused(2, None, TOLD)
    assert "--port 1: FTKIT_MASTER says 29500" in refused(None, 1, TOLD)


def test_several_nodes_of_which_nothing_is_known():
    for environment in ({}, {"SLURM_NODEID": "0", "SLURM_NNODES": "2"}):  # a batch script, no srun
        assert "write --hostfile FILE, or --slurm, or start it by srun" in refused(
            2, None, environment
        )


def test_a_step_of_slurm(scontrol):
    first, other = ({**STEP, "SLURM_NODEID": n} for n in "01")
    assert where(2, None, first) == Where(0, 2, "192.0.2.7", where(None, None, other).port)
    assert where(None, 29500, other) == Where(1, 2, "192.0.2.7", 29500)
    scontrol.write_text('#!/bin/sh\necho "127.0.0.9 127.0.0.8"\n')
    scontrol.chmod(0o755)
    assert where(2, None, other).address == "127.0.0.9"


def test_jobs_and_steps_meet_at_different_ports():
    found = {
        where(2, None, {**STEP, "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)}).port
        for job in range(1000, 1100)
        for step in range(3)
    }
    assert len(found) == 300
    assert min(found) >= 20000
    assert max(found) < 32000


def test_slurm_on_one_node_is_as_alone():
    alone = {**STEP, "SLURM_NODEID": "0", "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NUM_TASKS": "1"}
    assert where(None, None, alone) == Where(0, 1, "127.0.0.1", 0)


def test_slurm_with_other_numbers_than_asked_for():
    assert "this step of Slurm's has 2 nodes; write --nodes 2" in refused(3, None, STEP)
    many = {**STEP, "SLURM_STEP_NUM_TASKS": "16"}
    assert "it has started 16 tasks on 2 nodes" in refused(None, None, many)
    one = {**STEP, "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NUM_TASKS": "8"}
    assert "write srun --ntasks-per-node=1" in refused(None, None, one)
