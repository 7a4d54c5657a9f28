"""The sbatch script: what it asks for, what bash makes of it, and what it does at each ending.

srun, scontrol and scancel are small programs here that note how they are called; the same script
runs on a real Slurm in tests/slurm.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ftkit.core.errors import UserError
from ftkit.launch.slurm import Job, script

SRUN = """\
echo $$ >"$NOTES/pid"
pwd >"$NOTES/folder"
trap 'echo USR1 >>"$NOTES/signals"; mkdir -p "$SAVED"; sleep 0.2; exit 138' USR1
trap 'echo TERM >>"$NOTES/signals"; mkdir -p "$SAVED"; sleep 0.2; exit 143' TERM
printf '%s\\0' "$@" >"$NOTES/srun"
[ -z "$SAVES" ] || mkdir -p "$SAVED"
[ -z "$STATUS" ] || exit "$STATUS"
while :; do sleep 0.02; done
"""
SCONTROL = """\
case $* in
    "--oneliner show job 7") echo "JobId=7 JobName=x JobState=$STATE Restarts=0 PreemptTime=$PREEMPTED" ;;
    "requeue 7") echo 7 >>"$NOTES/requeued" ;;
    *) exit 9 ;;
esac
"""  # noqa: E501
SCANCEL = """\
echo "$*" >"$NOTES/scancel"
kill -TERM "$(cat "$NOTES/pid")"
"""
TIME = "2030-01-01T00:00:00"


@pytest.fixture
def job(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    return Job(
        recipe="r.yaml",
        overrides=(),
        run=Path("runs/x"),
        folder=folder,
        nodes=2,
        processes=8,
        cpus=32,
        command=("python", "-m", "ftkit"),
    )


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a job's script in bash, in another folder than its own."""
    notes = tmp_path / "notes"
    programs = tmp_path / "bin"
    notes.mkdir()
    programs.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "scancel": SCANCEL}.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{text}")
        (programs / name).chmod(0o755)

    def run(job, *, status=None, state="RUNNING", preempted=None, saves=False):
        path = tmp_path / "x.sbatch"
        path.write_text(script(job))
        checked = subprocess.run(["bash", "-n", path], capture_output=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, b"")
        environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "NOTES": str(notes),
            "STATUS": "" if status is None else str(status),
            "STATE": state,
            "PREEMPTED": preempted or "None",
            "SAVES": "yes" if saves else "",
            "SAVED": str(job.folder / job.run / "checkpoints" / "step-000010"),
            "SLURM_JOB_ID": "7",
            "SLURM_CPUS_PER_TASK": str(job.cpus),
        }
        return subprocess.Popen(
            ["bash", path], env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )

    run.notes = notes
    return run


def words(notes):
    return (notes / "srun").read_text().split("\0")[:-1]


def asked(job):
    """What the script asks of Slurm, in its order."""
    lines = script(job).splitlines()
    return [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]


# what it asks for


def test_what_it_asks_for(job):
    assert asked(job) == [
        '--job-name="x"',
        "--nodes=2",
        "--ntasks-per-node=1",
        "--gpus-per-node=8",
        "--cpus-per-task=32",
        "--requeue",
        "--open-mode=append",
        f'--output="{job.folder}/runs/x-%j.log"',
        "--signal=B:USR1@120",
    ]
    lines = script(job).splitlines()
    last = max(i for i, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(line.startswith("#") or not line for line in lines[:last])  # Slurm stops at code


@pytest.mark.parametrize(
    ("option", "replaced"),
    [
        ("--partition=gpu", ""),
        ("--partition gpu --time=1:00", ""),
        ("--gpus-per-node=0", "--gpus-per-node=8"),
        ("--gres=gpu:h100:8", "--gpus-per-node=8"),
        ("--gres=none", "--gpus-per-node=8"),
        ("-G16", "--gpus-per-node=8"),
        ("--gres=nvme:1", ""),
        ("-c 4", "--cpus-per-task=32"),
        ("--no-requeue", "--requeue"),
        ("--exclusive --signal=B:USR1@600", "--signal=B:USR1@120"),
        ("-J other", '--job-name="x"'),
    ],
)
def test_an_option_of_the_user_stands_as_it_is_in_place_of_ours(job, option, replaced):
    before = asked(job)
    if replaced:
        before.remove(replaced)
    assert asked(replace(job, options=(option, "--mem=0"))) == [*before, option, "--mem=0"]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--nodes=4", "--nodes N says how many"),
        ("-N4", "--nodes N says how many"),
        ("--time=1 -n 3", "one task a node"),
        ("--array=1-3", "one task a node"),
        ("gpu", "is no option"),
        ("", "is no option"),
        ("--comment='a", "is no option"),
        ("--comment=a\nrm -r x", "is no option"),
    ],
)
def test_options_that_are_refused(job, option, words):
    with pytest.raises(UserError) as caught:
        script(replace(job, options=("--partition=a", option)))
    (fault,) = caught.value.faults
    assert fault.place == "--sbatch"
    assert words in str(fault)


def test_all_options_that_are_refused_are_named_at_once(job):
    with pytest.raises(UserError) as caught:
        script(replace(job, options=("gpu", "--nodes=4")))
    assert len(caught.value.faults) == 2


def test_names_as_slurm_reads_them(job):
    odd = replace(job, run=Path('runs/50 % "of" it'))
    assert asked(odd)[0] == r'--job-name="50 % \"of\" it"'
    assert asked(odd)[7] == rf'--output="{job.folder}/runs/50 %% \"of\" it-%j.log"'
    with pytest.raises(UserError, match="another folder"):
        script(replace(job, run=Path("runs/a\\b")))


# what bash makes of it


@pytest.mark.parametrize(
    "odd",
    ["a b", "it's", '"quoted"', "$HOME", "`id`", "$(id)", "*", "a\nb", "#", "!x", "\\", "é;&|"],
)
def test_arguments_arrive_as_they_were_given(job, start, tmp_path, odd):
    folder = tmp_path / odd.strip("*").replace("\\", "_") / "there"
    folder.mkdir(parents=True)
    odd_job = replace(
        job,
        recipe=f"my {odd}.yaml",
        overrides=(f"method.name={odd}", "train.until={eval.exact_match: 0.6}"),
        folder=job.folder if "\n" in odd else folder,  # Slurm could write no log there
        command=(f"/{odd}/python", "-m", "ftkit"),
    )
    assert start(odd_job, status=0).wait() == 0
    command = [*odd_job.command, "train", odd_job.recipe, *odd_job.overrides]
    command += ["--gpus", "8", "--nodes", "2", "--resume"]
    assert words(start.notes)[-len(command) :] == command
    assert (start.notes / "folder").read_text() == f"{odd_job.folder}\n"


def test_srun_kills_no_node_because_another_ended(job, start):
    assert start(job, status=0).wait() == 0
    assert words(start.notes)[:4] == [
        "--ntasks-per-node=1",
        "--cpus-per-task=32",
        "--kill-on-bad-exit=0",
        "--wait=0",
    ]


def test_a_folder_that_is_gone_ends_the_job(job, start):
    assert start(replace(job, folder=job.folder / "gone"), status=0).wait() == 1
    assert not (start.notes / "srun").exists()


# how it ends


@pytest.mark.parametrize(
    ("status", "state", "preempted", "saves", "requeued"),
    [
        (0, "RUNNING", None, True, False),
        (1, "RUNNING", None, True, False),
        (2, "RUNNING", None, False, False),
        (1, "RUNNING", TIME, True, False),
        (2, "RUNNING", TIME, False, False),
        (137, "RUNNING", None, True, False),
        (143, "RUNNING", None, True, False),  # somebody's scancel --signal=TERM
        (143, "RUNNING", TIME, True, True),
        (143, "RUNNING", TIME, False, True),
        (143, "COMPLETING", TIME, True, False),  # Slurm has put it back itself
        (143, "CANCELLED", None, True, False),
        (138, "RUNNING", None, True, True),
        (138, "RUNNING", None, False, False),  # it would go on like that without an end
        (138, "RUNNING", TIME, False, True),
        (138, "CANCELLED", None, True, False),
    ],
)
def test_when_it_is_put_back_into_the_queue(
    job, start, *, status, state, preempted, saves, requeued
):
    (job.folder / job.run / "checkpoints" / "step-000009").mkdir(parents=True)
    process = start(job, status=status, state=state, preempted=preempted, saves=saves)
    said, _ = process.communicate()
    assert process.returncode == status
    assert (start.notes / "requeued").exists() is requeued
    assert ("back into the queue" in said) is (requeued or "not put back" in said)
    assert ("not put back" in said) is (status == 138 and not saves and not preempted)


def running(start, job, **how):
    """Start a job whose step goes on until a signal comes, and wait until both would catch it."""
    process = start(job, **how)
    deadline = time.monotonic() + 10
    while not (start.notes / "srun").exists() or not {10, 15} <= caught_by(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def caught_by(pid):
    """The numbers of the signals for which a process has handlers."""
    (line,) = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return {n + 1 for n in range(64) if int(line, 16) >> n & 1}


@pytest.mark.parametrize("times", [1, 2])
def test_the_warning_before_the_time_limit_reaches_srun_and_is_waited_for(job, start, times):
    process = running(start, job)
    for _ in range(times):
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.05)
    assert process.wait(timeout=10) == 138
    assert (start.notes / "signals").read_text().startswith("USR1\n")
    assert not (start.notes / "scancel").exists()
    assert (start.notes / "requeued").read_text() == "7\n"


def test_sigterm_reaches_the_step_by_scancel(job, start):
    process = running(start, job)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 143
    assert (start.notes / "scancel").read_text() == "--quiet --signal=TERM 7\n"
    assert (start.notes / "signals").read_text() == "TERM\n"
    assert not (start.notes / "requeued").exists()
