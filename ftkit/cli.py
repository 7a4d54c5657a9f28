"""The command line: reads arguments and calls one task.

Every command imports its task when it is called, so that ``--help`` waits for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from ftkit import __version__
from ftkit.cli_arguments import (
    DryRun,
    Gpus,
    Hostfile,
    Json,
    Nodes,
    Overrides,
    Port,
    RecipeName,
    Resume,
    Sbatch,
    Slurm,
    Submit,
    Target,
    loaded_from,
    not_with_slurm,
    only_with_slurm,
)
from ftkit.cli_recipes import recipes_app
from ftkit.cli_runs import runs_app
from ftkit.recipe.methods import method_lines

app = typer.Typer(
    name="ftkit",
    help="Fine-tune language models from YAML recipes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ftkit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None: ...


def _train_command(method: str = "") -> Callable[..., None]:
    """Return the command that trains by a recipe, of one method or of any."""

    def command(
        recipe: RecipeName,
        overrides: Overrides = None,
        *,
        resume: Resume = False,
        dry_run: DryRun = False,
        gpus: Gpus = None,
        nodes: Nodes = None,
        hostfile: Hostfile = None,
        port: Port = None,
        slurm: Slurm = False,
        submit: Submit = False,
        sbatch: Sbatch = None,
    ) -> None:
        if slurm:
            not_with_slurm({"--hostfile": hostfile, "--port": port})
        else:
            only_with_slurm({"--submit": submit, "--sbatch": sbatch})
        loaded = loaded_from(recipe, overrides, method=method)
        if slurm:
            from ftkit.tasks.slurm import slurm_job

            slurm_job(
                loaded,
                recipe,
                overrides or (),
                gpus=gpus,
                nodes=nodes or 1,
                options=sbatch or (),
                submit=submit,
                resume=resume,
                dry_run=dry_run,
            )
            return
        from ftkit.tasks.spread import Spread, spread

        how = Spread(gpus, nodes, hostfile, port)
        raise typer.Exit(spread(loaded, how, resume=resume, dry_run=dry_run))

    return command


app.command("train", help="Train by a recipe of any method.")(_train_command())
for _name, _about in method_lines().items():
    app.command(_name, help=f"Train: {_about}.\n\nThe recipe must be of method {_name}.")(
        _train_command(_name)
    )


@app.command("gen-negatives")
def gen_negatives(
    recipe: RecipeName,
    overrides: Overrides = None,
    *,
    shard: Annotated[
        str,
        typer.Option(metavar="I/N", help="Build this one of N shares, as on one of N machines."),
    ] = "1/1",
    held_out: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Build a pool of the held-out rows there, and not data.pool."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Take negatives from rows of {prompt, chosen, negatives} and sample none.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Build the pool of negatives that a dft recipe learns against, or go on with it.

    The recipe's model, as it is before training, answers each training prompt under the system
    prompts of its `sample:`. Stopped at any moment, the same command goes on.
    """
    from ftkit.tasks.gen_negatives import gen_negatives as task

    loaded = loaded_from(recipe, overrides, method="dft", pool=False)
    task(loaded, shard=shard, held_out=held_out, source=source, as_json=as_json)


@app.command()
def iterate(
    recipe: RecipeName,
    overrides: Overrides = None,
    *,
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds.")] = 2,
) -> None:
    """Train a dft recipe in rounds, each against a new pool.

    Each round samples negatives from the model of the round before, and trains it further. Folders
    are RUN/round-1, POOL/round-1 and so on; the same command goes on where it stopped.
    """
    from ftkit.tasks.iterate import iterate as task

    loaded_from(recipe, overrides, method="dft", pool=False)
    raise typer.Exit(task(recipe, tuple(overrides or ()), rounds))


@app.command("eval")
def evaluate(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A recipe, a run's folder or a model's folder.")
    ],
    overrides: Overrides = None,
    *,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Measure these instead: demonstrations, preference pairs or a pool's folder.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Measure at most so many rows.")] = None,
    rows: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write a line a row there, as JSON.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a model or a reward model on held-out rows.

    Loss and perplexity; on pairs and pools reward accuracy, with ties and margins; where the recipe
    says who judges answers, exact match. Each with n and a 95 % interval. eval.score=... says by
    what answers are ranked.
    """
    from ftkit.tasks.evaluate import evaluate_command

    evaluate_command(
        target, tuple(overrides or ()), data=data, limit=limit, as_json=as_json, rows=rows
    )


@app.command()
def check(
    recipes: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE", help="Recipes; KEY=VALUE among them are values for all."),
    ],
    files: Annotated[
        bool, typer.Option("--files/--no-files", help="Look whether the files it names are there.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Say whether recipes are valid.

    If not: all faults at once, each with its place and a remedy, and the exit status 2.
    """
    from ftkit.tasks.check import check as task

    raise typer.Exit(task(recipes, files=files, as_json=as_json))


@app.command()
def config(recipe: RecipeName, overrides: Overrides = None, as_json: Json = False) -> None:
    """Show every value of a recipe, and where it came from."""
    from ftkit.tasks.config import show_config

    show_config(loaded_from(recipe, overrides, files=False), as_json=as_json)


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from ftkit.tasks.schema import show_schema

    show_schema()


@app.command()
def data(
    recipe: RecipeName,
    overrides: Overrides = None,
    rows: Annotated[
        int | None,
        typer.Option(min=0, help="Show so many rows of each set (default: 3; with --json all)."),
    ] = None,
    boundaries: Annotated[
        bool, typer.Option("--boundaries", help="Put a bar between tokens.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what a recipe learns from, token by token.

    The exact training tokens, coloured by what is learnt; lengths; what was dropped and why.
    """
    loaded = loaded_from(recipe, overrides)
    from ftkit.tasks.preview import preview

    few = None if as_json else 3
    preview(loaded, rows=few if rows is None else rows, as_json=as_json, boundaries=boundaries)


@app.command()
def chat(
    target: Target,
    once: Annotated[
        str | None, typer.Option(metavar="PROMPT", help="Answer this and stop.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")] = 256,
) -> None:
    """Talk with a model."""
    from ftkit.tasks.chat import chat as task

    task(target, once=once, temperature=temperature, max_tokens=max_tokens)


app.add_typer(runs_app)
app.add_typer(recipes_app, name="recipes")
