"""A run as a job of Slurm: the sbatch script, as text."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ftkit.core.errors import Fault, UserError

MARK = "# Written by ftkit"
"""What the first comment of a script begins with; a file that has it may be replaced."""
WARNING = 120
"""Seconds before the time limit at which the job is told to stop with a checkpoint."""

_GPUS = ("--gpus-per-node", "--gpus", "-G", "--gres", "--gpus-per-task", "--gpus-per-socket")
_OURS = {
    "--nodes": ("-N",),
    "--ntasks": ("-n",),
    "--ntasks-per-node": (),
    "--array": ("-a",),
    "--wrap": (),
}
"""What a user may not ask of Slurm, with short names: the tasks would not be one a node."""


@dataclass(frozen=True, slots=True)
class Job:
    """A run as Slurm shall have it.

    Attributes:
        recipe: the recipe, as the command line names it in ``folder``.
        overrides: ``KEY=VALUE`` each.
        run: the run's folder, relative to ``folder`` or not.
        folder: the directory in which the recipe and its files have these names.
        nodes: how many machines.
        processes: how many processes each of them starts, one a GPU.
        cpus: how many CPUs each of them gives.
        options: further options for sbatch, such as ``--partition=gpu``; where one of them says
            what the script would say itself, it is said as there.
        command: how ftkit is started.
    """

    recipe: str
    overrides: tuple[str, ...]
    run: Path
    folder: Path
    nodes: int
    processes: int
    cpus: int
    command: tuple[str, ...]
    options: tuple[str, ...] = ()

    @property
    def script(self) -> Path:
        """Where the script lies: beside the run's folder."""
        return self.run.with_name(f"{self.run.name}.sbatch")

    @property
    def log(self) -> Path:
        """Where Slurm writes the log; %j is the job's number."""
        return self.run.with_name(f"{self.run.name}-%j.log")


def script(job: Job) -> str:
    """Return the sbatch script of a job.

    Raises:
        UserError: if an option or a name cannot be said to Slurm.
    """
    said = _names(job.options)
    train = [*job.command, "train", job.recipe, *job.overrides]
    train += ["--gpus", str(job.processes), "--nodes", str(job.nodes), "--resume"]
    head = [
        f"{MARK}, which replaces it when it is asked for this run again.",
        f"# Send it:  sbatch {shlex.quote(str(job.script))}     What it does: docs/cluster.md",
        "",
        *(line for names, line in _requests(job) if not said.intersection(names)),
    ]
    if job.options:
        head += ["# Asked for by --sbatch.", *(f"#SBATCH {option}" for option in job.options)]
    names = [
        f"cd {shlex.quote(str(job.folder))} || exit 1",
        f"checkpoints={shlex.quote(str(job.run / 'checkpoints'))}",
        f"train=({shlex.join(train)})",
    ]
    return "\n".join(["#!/usr/bin/env bash", *head, "", "set -u", *names, _BODY])


def _requests(job: Job) -> list[tuple[tuple[str, ...], str]]:
    """Return each line that asks Slurm for something, with the options that may replace it."""
    log = job.folder / job.log.with_name(f"{job.run.name.replace('%', '%%')}-%j.log")
    return [
        (("--job-name", "-J"), f"#SBATCH --job-name={_quoted(job.run.name)}"),
        ((), f"#SBATCH --nodes={job.nodes}"),
        ((), "# One task a node: ftkit itself starts a process a GPU."),
        ((), "#SBATCH --ntasks-per-node=1"),
        (_GPUS, f"#SBATCH --gpus-per-node={job.processes}"),
        (("--cpus-per-task", "-c"), f"#SBATCH --cpus-per-task={job.cpus}"),
        ((), "# The job may be put back into the queue; each start adds to the same log."),
        (("--requeue", "--no-requeue"), "#SBATCH --requeue"),
        (("--open-mode",), "#SBATCH --open-mode=append"),
        (("--output", "-o"), f"#SBATCH --output={_quoted(str(log))}"),
        ((), "# SIGUSR1 to this script alone, so many seconds before the time limit."),
        (("--signal",), f"#SBATCH --signal=B:USR1@{WARNING}"),
    ]


def _quoted(text: str) -> str:
    r"""Return a value as sbatch reads it back from a line of a script.

    >>> print(_quoted('runs/a "b"'))
    "runs/a \"b\""
    """
    if "\\" in text or not text.isprintable():
        found = f"{text!r} holds a backslash or an unprintable character"
        remedy = "give the run another folder; Slurm cannot write a log there"
        raise UserError(Fault("run", found, remedy))
    return '"' + text.replace('"', '\\"') + '"'


def _names(options: Sequence[str]) -> set[str]:
    """Return the options that the user gives, without values: ``{"--partition", "-t"}``."""
    found: set[str] = set()
    faults = []
    for option in options:
        names = _names_in(option)
        if names is None:
            remedy = "write it as sbatch takes it: --sbatch '--partition=gpu'"
            faults.append(Fault("--sbatch", f"'{option}' is no option", remedy))
            continue
        found |= names
        for ours, short in _OURS.items():
            if names & {ours, *short}:
                remedy = "one task a node is what ftkit needs; --nodes N says how many"
                faults.append(Fault("--sbatch", f"'{option}' is for ftkit to say", remedy))
    if faults:
        raise UserError(faults)
    return found


def _names_in(option: str) -> set[str] | None:
    try:
        words = shlex.split(option)
    except ValueError:
        return None
    if not words or not words[0].startswith("-") or not option.isprintable():
        return None
    return {
        word.split("=", 1)[0] if word.startswith("--") else word[:2]
        for word in words
        if word.startswith("-") and not _is_other_resource(word)
    }


def _is_other_resource(word: str) -> bool:
    """Whether it asks for a resource that is no GPU, such as ``--gres=nvme:1``."""
    return word.startswith("--gres=") and not any(s in word for s in ("gpu", "none"))


_BODY = r"""
# Slurm sends SIGTERM to every process of the job when it is preempted or cancelled, and SIGUSR1 to
# this script before the time limit. ftkit then stops with a checkpoint after the step it is in, on
# all nodes after the same one, with the status 143 (SIGTERM) or 138 (SIGUSR1). A run that fails
# ends with 1, a user's error with 2.

newest() { ls -1 "$checkpoints" 2>/dev/null | sort -V | tail -n 1; }
before=$(newest)

# The log shows what happens when it happens.
export PYTHONUNBUFFERED=1
# No node is killed because another one ended first: each writes its part of a checkpoint.
srun --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    --kill-on-bad-exit=0 --wait=0 "${train[@]}" &
step=$!

# srun passes SIGUSR1 on. By SIGTERM it would kill the step, so scancel passes that one on.
trap 'told=yes; kill -USR1 "$step"' USR1
trap 'told=yes; scancel --quiet --signal=TERM "$SLURM_JOB_ID"' TERM
told=yes
while [ -n "$told" ]; do
    told= # a signal ends the waiting, and the step goes on
    wait "$step"
    status=$?
done

job() { scontrol --oneliner show job "$SLURM_JOB_ID"; }
say() { printf 'job %s: %s\n' "$SLURM_JOB_ID" "$*"; }

# Slurm does not put a job back that ends by itself while it is preempted, so that is done here.
# One that is no longer RUNNING was cancelled, or Slurm has put it back: it is left as it is.
requeue() {
    if [[ $(job) == *" JobState=RUNNING "* ]]; then
        say "$1: back into the queue"
        scontrol requeue "$SLURM_JOB_ID" || say "not put back; send it again"
    fi
}

if [[ $status == 138 || $status == 143 ]]; then
    if [[ $(job) =~ " PreemptTime="[0-9] ]]; then
        requeue "preempted"
    elif [[ $status == 138 && $(newest) != "$before" ]]; then
        requeue "stopped by SIGUSR1"
    elif [[ $status == 138 ]]; then
        say "stopped before its first checkpoint: not put back into the queue, where the same" \
            "would happen again; give it more time (--time)"
    fi
fi
exit "$status"
"""
