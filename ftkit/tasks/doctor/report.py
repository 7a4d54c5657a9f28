"""``ftkit doctor``: what the machine has, what is wrong with it, and what a recipe lacks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ftkit.tasks.doctor import builds, devices, hub, network, storage, versions, wanted
from ftkit.tasks.doctor.finding import LATER, Finding, Later, Level, Probe, examine
from ftkit.tasks.doctor.inside import ask

if TYPE_CHECKING:
    from ftkit.recipe import Loaded
    from ftkit.tasks.doctor.devices import GPU

MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "problem": ("PROBLEM", "bold red")}
"""How levels are shown."""


def doctor(loaded: Loaded | None, *, as_json: bool) -> int:
    """Look at the machine, and print what was found.

    Args:
        loaded: a recipe, for what it lacks here; None = only the machine.
        as_json: print one object, ``{"problems", "notes", "findings": [{"section", "level", "what",
            "found", "remedy"}]}``, and nothing else.

    Returns:
        The exit status: 1 if there is any problem, else 0.
    """
    with Console(stderr=True).status("looking"):
        findings = list(examine(_probes(loaded)))
    counts = Counter(finding.level for _, finding in findings)
    if as_json:
        rows = [{"section": section, **asdict(finding)} for section, finding in findings]
        told = {"problems": counts["problem"], "notes": counts["note"], "findings": rows}
        typer.echo(json.dumps(told, ensure_ascii=False))
    else:
        _print(findings, counts)
    return 1 if counts["problem"] else 0


def _probes(loaded: Loaded | None) -> Sequence[Probe]:
    """Return what is looked at."""
    torch = Later(partial(ask, "torch"))
    run = None if loaded is None else loaded.recipe.run
    late = LATER + 5  # for those that wait for torch's process
    machine = [
        Probe("versions", "Python", versions.python),
        Probe("versions", "torch", partial(versions.of_torch, torch), late),
        Probe("versions", "libraries", versions.libraries),
        Probe("devices", "GPUs", partial(devices.gpus, torch), late),
        Probe("devices", "CPUs", partial(devices.cpus, torch), late),
        Probe("devices", "memory", devices.memory),
        Probe("network", "between GPUs", network.topology),
        Probe("network", "InfiniBand", network.infiniband),
        Probe("network", "interfaces", network.interfaces),
        Probe("network", "meeting of ranks", network.meeting),
        Probe("storage", "disks", lambda: storage.disks(storage.places(run))),
        Probe("storage", "shared memory", _shared_memory),
        Probe("storage", "limits", storage.limits),
        Probe("extensions", "compilers", builds.compilers),
        Probe("extensions", "extension locks", builds.locks),
        Probe("hub", "hub", hub.hub),
    ]
    return machine if loaded is None else [*machine, *_of_recipe(loaded, torch)]


def _of_recipe(loaded: Loaded, torch: Later[dict[str, Any]]) -> Iterator[Probe]:
    """Return what is looked at for a recipe."""
    recipe, late = loaded.recipe, LATER + 5

    def section(what: str, look: partial[Iterator[Finding]], seconds: float = late) -> Probe:
        return Probe(f"recipe {loaded.file}", what, look, seconds)

    yield section("files", partial(wanted.files, loaded))
    yield section("models of the hub", partial(hub.models, recipe))
    yield section("what only some need", partial(wanted.extras, recipe))
    yield section("servers", partial(wanted.servers, recipe))
    yield section("precision", partial(_precision, loaded, torch))
    yield section("parallel", partial(_engine, loaded))
    yield section("compilers", partial(wanted.compiled, recipe))
    yield section("checkpoints", partial(_checkpoints, loaded))


def _gpus() -> list[GPU]:
    """Return the GPUs; none where they cannot be told, which is told among the devices."""
    try:
        return devices.listed()
    except Exception:
        return []


def _shared_memory() -> Iterator[Finding]:
    yield storage.shared_memory(Path("/dev/shm"), len(_gpus()))


def _precision(loaded: Loaded, torch: Later[dict[str, Any]]) -> Iterator[Finding]:
    return wanted.precision(loaded.recipe, _gpus(), torch)


def _engine(loaded: Loaded) -> Iterator[Finding]:
    return wanted.engine(loaded.recipe, len(_gpus()))


def _checkpoints(loaded: Loaded) -> Iterator[Finding]:
    return wanted.checkpoints(loaded.recipe, wanted.room(loaded.recipe.run))


def _print(findings: Sequence[tuple[str, Finding]], counts: Counter[Level]) -> None:
    """Print a table a section: level, what, what was found, and below it the remedy."""
    console = Console()
    for name in dict.fromkeys(section for section, _ in findings):
        console.print(Text(name, "bold"))
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, min_width=7)
        table.add_column(max_width=28, overflow="fold")
        table.add_column(overflow="fold")
        for section, finding in findings:
            if section == name:
                mark = Text(*MARKS[finding.level])
                said = Text(finding.found)
                if finding.remedy:
                    said.append(
                        f"\n-> {finding.remedy}", "dim" if finding.level == "ok" else "cyan"
                    )
                table.add_row(mark, Text(finding.what), said)
        console.print(table)
        console.print()
    console.print(f"problems: {counts['problem']}, notes: {counts['note']}", highlight=False)
