"""``ftkit plan``: what a run will take, before anything is loaded, and what to change."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ftkit.plan.changes import Outcome, Planner
from ftkit.plan.machine import GIB, Machine, machine_of
from ftkit.plan.models import Shelf
from ftkit.run import read_data

if TYPE_CHECKING:
    from ftkit.plan.estimate import Estimate
    from ftkit.recipe import Loaded

TIGHT = 0.9
"""From this share of the memory on, changes are named though the run fits."""

FEW = 4 * GIB
"""Below this, sizes are shown in MiB."""


def plan(loaded: Loaded, *, gpus: int | None, memory: float | None, as_json: bool) -> None:
    """Say what a run will take, and what to change if it does not fit.

    Args:
        loaded: the recipe.
        gpus: processes, each with a GPU; None = as many as there are GPUs here, or one.
        memory: GiB of each GPU; None = what there is here.
        as_json: print one object and nothing else.

    Raises:
        UserError: if the data cannot be read, there is no such model, or it cannot be planned.
    """
    machine = machine_of(gpus, memory)
    recipe = loaded.recipe
    data = read_data(recipe)
    planner = Planner(loaded.resolved(), recipe, data, machine, Shelf(data.tokenizer))
    now = planner.estimate()
    assert now is not None
    share = now.peak / machine.memory
    changes = planner.changes(now) if share > TIGHT else []
    alone = any(each.fits and each.change.same for each in changes)
    together = planner.together(now) if share > 1 and not alone else None
    if as_json:
        typer.echo(json.dumps(_json(loaded, now, machine, changes, together), indent=2))
        return
    console = Console()
    _show(console, loaded, now, machine)
    if changes:
        _show_changes(console, changes, together, machine)


def _json(
    loaded: Loaded,
    now: Estimate,
    machine: Machine,
    changes: Sequence[Outcome],
    together: Outcome | None,
) -> dict[str, Any]:
    """Return the plan as one object; all sizes are bytes."""
    work = now.work
    return {
        "recipe": str(loaded.file),
        "method": loaded.recipe.method.name,
        "steps": work.steps,
        "prompts": work.prompts,
        "tokens": {
            "step": round(work.step),
            "largest_step": work.most,
            "run": work.total,
            "longest_row": work.longest,
            "at_once": now.part.tokens,
            "at_most": work.sampled,
        },
        "machine": {
            "kind": machine.kind,
            "processes": machine.processes,
            "memory": machine.memory,
            "host": machine.host,
            "source": machine.source,
        },
        "parts": {part.name: {**part.during, "host": part.host} for part in now.parts},
        "phases": now.phases,
        "phase": now.phase,
        "peak": now.peak,
        "host": now.host,
        "fits": now.peak <= machine.memory,
        "changes": [_change(each) for each in changes],
        "together": None if together is None else _change(together),
    }


def _change(outcome: Outcome) -> dict[str, Any]:
    change = outcome.change
    return {
        "change": str(change),
        "saves": outcome.saves,
        "peak": outcome.peak,
        "fits": outcome.fits,
        "learns_the_same": change.same,
    }


def _show(console: Console, loaded: Loaded, now: Estimate, machine: Machine) -> None:
    """Print steps, tokens, the table of parts, and whether it fits."""
    work, most = now.work, "at most " if now.work.sampled else ""
    lines = [
        f"{loaded.recipe.method.name}: {work.steps:,} steps of {work.prompts:,} prompts, "
        f"{_processes(machine)}",
        f"tokens: {most}{work.step:,.0f} a step ({work.most:,} in the largest), {most}"
        f"{work.total:,} in all; the longest row has {work.longest:,}",
        f"at once: {most}{now.part.tokens:,} tokens; a step is {work.parts:,} such parts",
    ]
    for line in lines:
        console.print(Text(line), soft_wrap=True)
    console.print(_table(now))
    verdict = "it fits" if now.peak <= machine.memory else "it does not fit"
    share = now.peak / machine.memory
    style = "bold red" if share > 1 else "bold yellow" if share > TIGHT else "bold green"
    told = f"{verdict}: {_size(now.peak)} ({now.phase}), {share:.0%} of {_size(machine.memory)}"
    console.print(Text(f"{told} ({machine.source})", style), soft_wrap=True)
    if now.host and machine.host is not None and now.host > machine.host:
        said = f"! the host has {_size(machine.host)} for each process, and {_size(now.host)}"
        console.print(Text(f"{said} would lie there", "bold red"), soft_wrap=True)


def _processes(machine: Machine) -> str:
    where = "GPU" if machine.kind == "cuda" else "process"
    plural = "es" if where == "process" else "s"
    return f"on {machine.processes} {where}{plural if machine.processes > 1 else ''}"


def _table(now: Estimate) -> Table:
    """Return the parts by phase."""
    unit, name = (2**20, "MiB") if now.peak < FEW else (GIB, "GiB")
    host = any(part.host for part in now.parts)
    table = Table(box=None, pad_edge=False)
    table.add_column(name)
    for phase in [*now.phases, *(["host"] if host else [])]:
        table.add_column(phase, justify="right", style="bold" if phase == now.phase else "")

    def cell(size: int) -> str:
        return f"{size / unit:,.{0 if name == 'MiB' else 2}f}" if size else ""

    for part in now.parts:
        sizes = [part.during.get(phase, 0) for phase in now.phases]
        table.add_row(part.name, *map(cell, [*sizes, *([part.host] if host else [])]))
    totals = [*now.phases.values(), *([now.host] if host else [])]
    table.add_row("total", *map(cell, totals), style="bold")
    return table


def _show_changes(
    console: Console, changes: Sequence[Outcome], together: Outcome | None, machine: Machine
) -> None:
    """Print what could be changed, what that saves, and whether it fits then."""
    table = Table(box=None, pad_edge=False)
    table.add_column("change", no_wrap=True)
    table.add_column("saves", justify="right", no_wrap=True)
    table.add_column("then", justify="right", no_wrap=True)
    table.add_column("")
    for each in changes:
        remarks = ["fits"] if each.fits else []
        remarks += [] if each.change.same else ["learns something else"]
        sizes = _size(each.saves), _size(each.peak)
        table.add_row(Text(str(each.change)), *sizes, ", ".join(remarks))
    console.print(table)
    if together is not None:
        said = f"together: {together.change}: {_size(together.peak)}, which fits"
        console.print(Text(said, "bold"), soft_wrap=True)
    elif not any(each.fits and each.change.same for each in changes):
        said = f"nothing that leaves what is learnt makes it fit in {_size(machine.memory)}"
        console.print(Text(said, "bold"), soft_wrap=True)


def _size(size: int) -> str:
    """Return a size in words.

    >>> _size(3 * 2**29), _size(2**20)
    ('1.50 GiB', '1 MiB')
    """
    return f"{size / GIB:,.2f} GiB" if size >= GIB else f"{size / 2**20:,.0f} MiB"
