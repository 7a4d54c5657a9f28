"""Commands beside runs: ``compare``, ``samples``, ``export``, ``serve``, ``doctor``, ``plan``."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import typer

from ftkit.cli_arguments import DryRun, Json, Overrides, RecipeName, loaded_from

Kind = Literal["rollout", "greedy", "sampled"]
Status = Literal["correct", "incorrect", "unparseable", "timeout", "error"]
Precision = Literal["float32", "bfloat16"]

runs_app = typer.Typer()


@runs_app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="The folders of runs.")],
    *,
    out: Annotated[
        str, typer.Option(metavar="NAME", help="Write NAME.png and NAME.html.")
    ] = "compare",
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Draw these measures, of metrics.jsonl or (eval.NAME) of eval.jsonl.",
            show_default="reward, entropy, kl, length, held-out accuracy, loss",
        ),
    ] = None,
    smooth: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Average measures of training over N steps; 1 = as they are.",
            show_default="a 25th of all steps",
        ),
    ] = None,
    each: Annotated[
        bool,
        typer.Option(
            "--each", help="Draw each run, also those whose recipes differ in seed and run alone."
        ),
    ] = False,
    over: Annotated[
        str | None,
        typer.Option(
            metavar="KEY,...",
            help="Draw runs as one line though their recipes differ in these keys too.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw the training dynamics of runs in one picture, as PNG and as a page.

    Reward, entropy, KL, length, held-out accuracy and loss, against steps and against tokens, with
    a table of final figures. Runs whose recipes differ in seed and run alone are one line: their
    mean, with its standard error.
    """
    from ftkit.tasks.compare import compare as task

    task(runs, out=out, metrics=metrics, smooth=smooth, each=each, over=over, as_json=as_json)


@runs_app.command()
def samples(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")],
    *,
    step: Annotated[
        int | None, typer.Option(min=0, help="Those of this step.", show_default=False)
    ] = None,
    last: Annotated[bool, typer.Option("--last", help="Those of the last step.")] = False,
    kind: Annotated[
        Kind | None,
        typer.Option(
            help="Answers to learn from (rollout), or to held-out prompts.", show_default=False
        ),
    ] = None,
    status: Annotated[
        Status | None, typer.Option(help="Answers judged so.", show_default=False)
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(metavar="MIN..MAX", help="Answers with such a reward.", show_default=False),
    ] = None,
    grep: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Answers with this in them or in the prompt.", show_default=False
        ),
    ] = None,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="Show so many groups.")] = 10,
    full: Annotated[bool, typer.Option("--full", help="Show long texts whole.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a run's policy answered, with rewards.

    Each group is a prompt and the answers to it that are asked for; with several options, those
    that fulfil all of them.
    """
    from ftkit.tasks.samples import samples as task

    task(
        run,
        step=step,
        last=last,
        kind=kind,
        status=status,
        reward=reward,
        grep=grep,
        n=n,
        full=full,
        as_json=as_json,
    )


@runs_app.command()
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")],
    *,
    out: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Write there.", show_default="RUN/export"),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge/--no-merge", help="Merge adapters into their base.")
    ] = True,
    dtype: Annotated[
        Precision | None,
        typer.Option(help="Of the weights.", show_default="the recipe's; of adapters float32"),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="STEP|best",
            help="The weights of this checkpoint.",
            show_default="the final model",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a run's model as a folder that transformers, vLLM and others load.

    Adapters are merged in float32, and what that and rounding changed is measured, printed and
    written into FOLDER/export.json; a merge that changes more than rounding does is refused.
    """
    from ftkit.tasks.export import export as task

    task(run, out=out, merge=merge, dtype=dtype, checkpoint=checkpoint, as_json=as_json)


@runs_app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(
    context: typer.Context,
    recipe: RecipeName,
    *,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port.")] = 8000,
    dry_run: DryRun = False,
) -> None:
    """Start a vLLM server that writes the answers of runs with this recipe's model.

    KEY=VALUE are values of the recipe, all else are options of vLLM, such as
    --tensor-parallel-size 2. Runs name it as sample.vllm.server.
    """
    overrides = [each for each in context.args if re.match(r"[a-z_0-9.]+=", each)]
    further = [each for each in context.args if each not in overrides]
    loaded = loaded_from(recipe, overrides, files=False)
    from ftkit.tasks.serve import serve as task

    raise typer.Exit(task(loaded, host=host, port=port, dry_run=dry_run, further=further))


@runs_app.command()
def doctor(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="Say what this recipe lacks, too."),
    ] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Look at the machine: versions, devices, network, disks, stale locks; what a recipe lacks.

    Each finding is ok, a note or a problem, with a remedy. The exit status is 1 if there is any
    problem, else 0. Nothing is changed.
    """
    loaded = None if recipe is None else loaded_from(recipe, overrides, files=False)
    from ftkit.tasks.doctor.report import doctor as task

    raise typer.Exit(task(loaded, as_json=as_json))


@runs_app.command()
def plan(
    recipe: RecipeName,
    overrides: Overrides = None,
    gpus: Annotated[
        int | None,
        typer.Option(
            min=1, help="On so many GPUs, a process each.", show_default="those of this machine"
        ),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(
            metavar="GIB", help="The memory of each GPU.", show_default="what there is here"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a run will take, before anything is loaded, and what to change if it does not fit.

    Steps, tokens, and the memory of each process by part and phase.
    """
    loaded = loaded_from(recipe, overrides)
    from ftkit.tasks.plan import plan as task

    task(loaded, gpus=gpus, memory=memory, as_json=as_json)
