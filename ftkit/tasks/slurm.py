"""``ftkit train --slurm``: a run as a job of Slurm, written as a script and sent."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from ftkit.core.errors import user_error
from ftkit.launch.slurm import MARK, Job, script
from ftkit.recipe import Loaded, flatten, load_recipe
from ftkit.train.folder import RunFolder

CPUS = 4
"""For each process, where the recipe does not say how many threads it has."""


def slurm_job(
    loaded: Loaded,
    recipe: str,
    overrides: Sequence[str],
    *,
    gpus: int | None,
    nodes: int,
    options: Sequence[str],
    submit: bool,
    resume: bool,
    dry_run: bool,
) -> int:
    """Write the script of a run beside its folder, and send it if so wished; train nothing.

    Args:
        loaded: the recipe, resolved.
        recipe: the recipe as the command line names it.
        overrides: ``KEY=VALUE`` each.
        gpus: processes on each node.
        nodes: how many nodes.
        options: further options for sbatch.
        submit: send it.
        resume: whether the folder may hold a run.
        dry_run: print the script, write nothing and send nothing.

    Returns:
        The exit status: 0.

    Raises:
        UserError: if the job cannot be described, its script's place is taken, or Slurm refuses it.
    """
    if gpus is None:
        remedy = "add --gpus N; nothing here tells what is in the nodes of the cluster"
        raise user_error("--slurm", "how many GPUs shall a node give?", remedy)
    _check_folder(loaded, resume=resume)
    job = Job(
        recipe=recipe,
        overrides=tuple(overrides),
        run=Path(loaded.recipe.run),
        folder=Path.cwd(),
        nodes=nodes,
        processes=gpus,
        cpus=gpus * (loaded.recipe.train.threads or CPUS),
        command=(sys.executable, "-m", "ftkit"),
        options=tuple(options),
    )
    text = script(job)
    if dry_run:
        typer.echo(text, nl=False)
        return 0
    if submit and shutil.which("sbatch") is None:
        remedy = "run this where Slurm's commands are, or without --submit"
        raise user_error("--submit", "there is no sbatch here", remedy)
    _write(job.script, text)
    if submit:
        _send(job)
    else:
        typer.echo(f"send it: sbatch {shlex.quote(str(job.script))}")
    return 0


def _check_folder(loaded: Loaded, *, resume: bool) -> None:
    """Refuse now what the job would refuse when its turn has come."""
    folder = RunFolder(Path(loaded.recipe.run))
    if resume and folder.holds_a_run:
        before = load_recipe(str(folder.path / "recipe.yaml"))
        folder.check_recipe(flatten(loaded.resolved()), flatten(before.resolved()))
    else:
        folder.check_free()


def _write(path: Path, text: str) -> None:
    """Write the script and say so; what somebody else wrote stays."""
    before = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text(encoding="utf-8", errors="replace") if path.exists() else None
        if before is not None and not _ours(before):
            remedy = "move it away, or give the run another folder (run=...)"
            raise user_error(str(path), "it exists, and ftkit did not write it", remedy)
        if before != text:
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise user_error(str(path), f"cannot be written: {error.strerror}") from error
    told = "written" if before is None else "as it was" if before == text else "replaced"
    typer.echo(f"{path}: {told}")


def _ours(text: str) -> bool:
    return any(line.startswith(MARK) for line in text.splitlines()[1:2])


def _send(job: Job) -> None:
    command = ["sbatch", "--parsable", str(job.script)]
    sent = subprocess.run(command, capture_output=True, text=True, check=False)
    if sent.returncode != 0:
        said = " ".join(sent.stderr.split()) or f"status {sent.returncode}"
        remedy = "change what is asked of Slurm: --sbatch OPTION"
        raise user_error("sbatch", f"it refused {job.script}: {said}", remedy)
    number = sent.stdout.strip().partition(";")[0]
    log = str(job.log).replace("%j", number)
    typer.echo(f"sent as job {number}; its log: {log}")
