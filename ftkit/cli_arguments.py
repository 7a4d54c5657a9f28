"""What commands have in common: their arguments, and how they read a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from ftkit.core.errors import Fault, UserError

if TYPE_CHECKING:
    from ftkit.recipe import Loaded

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a built-in recipe.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Values that take the place of the recipe's: train.lr=1e-4",
        show_default=False,
    ),
]
Target = Annotated[
    str, typer.Argument(metavar="TARGET", help="A run's folder, a model's folder or a hub name.")
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on from the run's newest checkpoint, or start without one."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Read recipe and data, say what would happen, stop.")
]

Gpus = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes on each machine, one a GPU; on the CPU where there is none.",
        show_default="all GPUs here",
    ),
]
Nodes = Annotated[
    int | None,
    typer.Option(min=1, help="Machines: the first of --hostfile.", show_default="all of it, or 1"),
]
Hostfile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Names the machines: HOST slots=N, a line each.", show_default=False
    ),
]
Port = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help="Where the processes meet.", show_default="a free one"),
]
Slurm = Annotated[
    bool,
    typer.Option("--slurm", help="Train nothing; write RUN.sbatch, the run as a job of Slurm."),
]
Submit = Annotated[bool, typer.Option("--submit", help="With --slurm: send the job.")]
Sbatch = Annotated[
    list[str] | None,
    typer.Option(
        metavar="OPTION",
        help="With --slurm: a further option for sbatch, --partition=gpu; may be given again.",
        show_default=False,
    ),
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def only_with_slurm(options: Mapping[str, object]) -> None:
    """Raise ``UserError`` where one of these options is given, without ``--slurm``."""
    if faults := [
        Fault(option, "has no meaning without --slurm", "add --slurm, or leave it out")
        for option, given in options.items()
        if given
    ]:
        raise UserError(faults)


def not_with_slurm(options: Mapping[str, object]) -> None:
    """Raise ``UserError`` where one of these options is given beside ``--slurm``."""
    if faults := [
        Fault(option, "Slurm itself says which machines these are", "leave it out")
        for option, given in options.items()
        if given
    ]:
        raise UserError(faults)


def loaded_from(
    recipe: str,
    overrides: list[str] | None,
    *,
    method: str = "",
    files: bool = True,
    pool: bool = True,
) -> Loaded:
    """Return a valid recipe: of this method, and with files that are there, if so wished."""
    from ftkit.recipe import load_recipe, require_files, require_method

    loaded = load_recipe(recipe, overrides or ())
    if method:
        require_method(loaded, method)
    if files:
        require_files(loaded, pool=pool)
    return loaded
