"""The sbatch script on a real Slurm: two nodes, preemption, time limits (``make test-slurm``)."""

from __future__ import annotations

import json
import re
import subprocess
import time

import pytest

from tests.slurm.conftest import COMMAND

pytestmark = pytest.mark.slurm

SHORT = 400
"""Steps: long enough for a signal to come in the middle."""
ENDLESS = 10**6


def steps_of(run):
    path = run.folder / "metrics.jsonl"
    rows = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(row)["step"] for row in rows]


def wait_for_steps(cluster, run, number, steps=3):
    """Wait until so many steps are done."""
    deadline = time.monotonic() + 90
    while len(steps_of(run)) < steps:
        assert cluster.of(number)["JobState"] in {"PENDING", "RUNNING"}, run.log(number)
        assert time.monotonic() < deadline, cluster.of(number)
        time.sleep(0.2)


def resumed_at(run, number):
    """The steps after which it went on."""
    return [int(step) for step in re.findall(r"going on after step (\d+)", run.log(number))]


def finished(run):
    """Whether every step was done once, whoever interrupted it, and the end was reached."""
    summary = json.loads((run.folder / "summary.json").read_text())
    return steps_of(run) == list(range(1, run.steps + 1)) and summary["status"] == "finished"


def other_job(cluster, seconds):
    """Send a job that takes both nodes from whoever has them."""
    wrap = f"--wrap=sleep {seconds}"
    return cluster.send("--partition=high", "--nodes=2", "--output=/dev/null", wrap)


def test_a_job_is_one_task_on_each_of_two_nodes(cluster, made):
    run = made(SHORT, "--partition=low")
    number = cluster.send(run.path)
    wait_for_steps(cluster, run, number)
    step = cluster("scontrol", "--oneliner", "show", "step", f"{number}.0")
    assert " Nodes=2 " in step
    assert " Tasks=2 " in step
    assert " NodeList=n[1-2] " in step
    ended = cluster.wait(number, JobState="COMPLETED")
    assert (ended["ExitCode"], ended["Restarts"]) == ("0:0", "0")
    assert finished(run)


@pytest.mark.parametrize("partition", ["low", "abrupt"])
def test_a_preempted_job_goes_on_from_its_checkpoint_when_the_other_is_done(
    cluster, made, partition
):
    """In `low` it ends within the grace time and puts itself back; in `abrupt` Slurm does."""
    run = made(SHORT, f"--partition={partition}")
    number = cluster.send(run.path)
    wait_for_steps(cluster, run, number)
    other = other_job(cluster, seconds=5)
    cluster.wait(number, JobState="PENDING", Restarts="1")
    (checkpoint,) = (run.folder / "checkpoints").glob("step-*")
    cluster.wait(other, seconds=30, JobState="COMPLETED")  # the grace time is a minute
    ended = cluster.wait(number, seconds=120, JobState="COMPLETED")
    assert (ended["ExitCode"], ended["Restarts"]) == ("0:0", "1")
    log = run.log(number)
    assert ("preempted: back into the queue" in log) is (partition == "low")
    assert resumed_at(run, number) == [int(checkpoint.name.removeprefix("step-"))]
    assert finished(run)


def test_a_job_that_meets_its_time_limit_goes_on_and_a_cancelled_one_does_not(cluster, made):
    run = made(ENDLESS, "--partition=low", "--time=3")
    number = cluster.send(run.path)
    wait_for_steps(cluster, run, number)
    cluster.wait(number, seconds=180, Restarts="1")
    assert "stopped by SIGUSR1: back into the queue" in run.log(number)
    cluster.wait(number, JobState="RUNNING")
    before = len(steps_of(run))
    wait_for_steps(cluster, run, number, before + 3)
    (resumed,) = resumed_at(run, number)
    assert steps_of(run)[:before] == list(range(1, before + 1))
    assert resumed == before
    cluster("scancel", number)
    cluster.wait(number, JobState="CANCELLED")
    stays_away(cluster, number, Restarts="1", JobState="CANCELLED")
    assert len(list((run.folder / "checkpoints").glob("step-*"))) > 1  # the second by scancel


def stays_away(cluster, number, **values):
    """Look for as long as a job that was put back waits before it starts again, and longer."""
    time.sleep(12)
    found = cluster.of(number)
    assert {key: found[key] for key in values} == values
    assert not cluster("squeue", "--noheader")


def test_a_sigterm_to_the_script_alone_stops_the_run_with_a_checkpoint(cluster, made):
    run = made(ENDLESS, "--partition=low")
    number = cluster.send(run.path)
    wait_for_steps(cluster, run, number)
    cluster("scancel", "--batch", "--signal=TERM", number)
    ended = cluster.wait(number, JobState="FAILED")
    assert (ended["ExitCode"], ended["Restarts"]) == ("143:0", "0")
    assert list((run.folder / "checkpoints").glob("step-*"))


def test_a_users_mistake_is_not_tried_again(cluster, made):
    run = made(SHORT, "--partition=low")
    (run.job.folder / "train.jsonl").unlink()
    number = cluster.send(run.path)
    failed = cluster.wait(number, JobState="FAILED")
    assert failed["ExitCode"] == "2:0"
    stays_away(cluster, number, Restarts="0", JobState="FAILED", ExitCode="2:0")
    assert "train.jsonl" in run.log(number)


def ftkit(cluster, run, *arguments):
    command = [*COMMAND, "train", run.job.recipe, "--slurm", "--gpus", "1", "--submit", *arguments]
    return subprocess.run(
        command,
        cwd=run.job.folder,
        env=cluster.environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_ftkit_train_slurm_sends_what_slurm_understands(cluster, made):
    run = made(SHORT)
    options = ["--partition=low", "--time=0:07:00", "--hold", "--comment='a b'"]
    asked = [word for option in options for word in ("--sbatch", option)]
    done = ftkit(cluster, run, "--nodes", "2", *asked)
    assert done.returncode == 0, done.stderr
    (number,) = re.findall(r"sent as job (\d+)", done.stdout)
    found = cluster.of(number)
    cluster("scancel", number)
    assert found["JobState"] == "PENDING"
    assert found["Reason"] == "JobHeldUser"
    assert (found["NumNodes"], found["NumTasks"], found["CPUs/Task"]) == (
        "2-2",
        "2",
        "1",
    )
    assert (found["TresPerNode"], found["Requeue"]) == ("gres:gpu:1", "1")
    assert (found["Partition"], found["TimeLimit"]) == ("low", "00:07:00")
    said = cluster("scontrol", "--oneliner", "show", "job", number)
    assert " JobName=a run " in said
    assert f" StdOut={run.job.folder}/a run-{number}.log " in said
    assert " Comment=a b " in said


def test_what_slurm_refuses_is_a_users_error(cluster, made):
    done = ftkit(cluster, made(SHORT), "--sbatch", "--partition=none")
    assert done.returncode == 2
    assert "invalid partition" in done.stderr
