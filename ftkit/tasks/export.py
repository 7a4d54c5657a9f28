"""``ftkit export``: a run's model as a folder that others load, and what that changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from ftkit import __version__
from ftkit.core.errors import Fault, UserError, user_error
from ftkit.model.merge import has_adapters
from ftkit.model.quantize import form_of
from ftkit.recipe import load_recipe
from ftkit.tasks.changes import Changes, Probe, probe, write
from ftkit.tasks.target import is_run
from ftkit.tasks.weights import Chosen, choose
from ftkit.train.folder import environment

if TYPE_CHECKING:
    from ftkit.model.reader import Reader

REPORT = "export.json"
"""The file, beside the weights, that says what they are."""

ABOUT = {
    "learnt": "what the adapters do, for comparison",
    "merging": "adapters merged into weights, in float32",
    "rounding": "weights rounded",
    "reading": "the folder against what was written",
    "total": "the folder against the model as it was trained",
}
"""What each change is, in words, in the order in which they are told."""


def export(
    run: str,
    *,
    out: str | None,
    merge: bool,
    dtype: str | None,
    checkpoint: str | None,
    as_json: bool,
) -> None:
    """Write a run's model in Hugging Face layout, and measure what that changed.

    Args:
        run: the run's folder.
        out: where to; None = ``RUN/export``.  Nothing is overwritten.
        merge: whether adapters become part of their base; if not, they are written alone.
        dtype: of what is written; None = the recipe's, for adapters alone float32.
        checkpoint: a step or ``best``, in place of the run's final model.
        as_json: print one object, that of ``export.json`` with the ``folder``, and nothing else.

    Raises:
        UserError: if there is no such model, the folder is taken, or merging would change the model
            by more than rounding does.
        RunError: if what is read back is not what was written.
    """
    folder, to = Path(run), Path(out) if out else Path(run) / "export"
    _check(folder, to)
    recipe = load_recipe(str(folder / "recipe.yaml")).recipe
    chosen = choose(folder, recipe, checkpoint)
    with Console(stderr=True).status("exporting"):
        reader = chosen.load()
        if not merge and not has_adapters(reader):
            found = "its weights are whole: there are no adapters to be written alone"
            raise user_error(chosen.place, found, "leave --no-merge out")
        kind = dtype or ("float32" if not merge else recipe.model.dtype)
        report = _export(reader, chosen, to, kind, alone=not merge)
    if as_json:
        typer.echo(json.dumps({"folder": str(to), **report}))
    else:
        _print(to, report)


def _check(run: Path, to: Path) -> None:
    """Refuse what is no run, and a folder that holds something, before anything is loaded."""
    faults = []
    if not is_run(run):
        remedy = "give the folder that ftkit train wrote"
        faults.append(Fault(str(run), "holds no run (recipe.yaml)", remedy))
    if to.is_dir() and any(to.iterdir()):
        found = "it exists and is not empty"
        faults.append(Fault(str(to), found, "give another with --out, or remove it"))
    elif to.exists() and not to.is_dir():
        faults.append(Fault(str(to), "it is a file", "give a folder with --out"))
    if faults:
        raise UserError(faults)


def _export(reader: Reader, chosen: Chosen, to: Path, dtype: str, *, alone: bool) -> dict[str, Any]:
    """Write the model aside, compare it, and only then give it its name; return the report."""
    recipe, adapted, base = chosen.recipe, has_adapters(reader), _base(reader, chosen)
    form = form_of(reader.model)
    rows = probe(recipe, reader, templated=chosen.checkpoints is None)
    with _aside(to) as aside:
        changes = write(
            reader,
            recipe,
            aside,
            rows.rows,
            dtype=getattr(torch, dtype),
            alone=alone,
            place=chosen.place,
        )
        report = {
            "ftkit": __version__,
            "versions": environment()["versions"],
            "run": recipe.run,
            "method": recipe.method.name,
            "source": chosen.source,
            "step": chosen.step,
            "base": base,
            "form": "adapters" if alone else "merged" if adapted else "weights",
            "merged_in": "float32" if adapted and not alone else None,
            "dtype": dtype,
            **_told(changes, rows, recipe.method.reads == "score"),
            "notes": _notes(changes, rows, dtype, form=form, alone=alone),
        }
        (aside / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    return report


@contextmanager
def _aside(to: Path) -> Iterator[Path]:
    """Give a folder that takes the place of ``to`` at the end, and is removed if that fails."""
    around = to.with_name(f".exporting-{to.name}")
    shutil.rmtree(around, ignore_errors=True)
    try:
        yield around / "model"
        (around / "model").rename(to)  # over a folder only if that is empty
    finally:
        shutil.rmtree(around, ignore_errors=True)


def _base(reader: Reader, chosen: Chosen) -> dict[str, str | None] | None:
    """Return what adapters are on, or what the run began with; None where that was nothing."""
    adapters = getattr(reader.model, "peft_config", None)
    if adapters is not None:
        own = adapters["default"]
        return {"path": str(own.base_model_name_or_path), "revision": own.revision}
    config = chosen.recipe.model
    return None if config.path is None else {"path": config.path, "revision": config.revision}


def _told(changes: Changes, rows: Probe, rewards: bool) -> dict[str, Any]:
    """Return the measured part of the report."""
    sizes = {"rows": len(rows.rows), "tokens": sum(map(len, rows.rows))}
    return {
        "of": "rewards" if rewards else "logits",
        "spread": changes.spread,
        "difference": {n: changes.found[n].to_json() for n in ABOUT if n in changes.found},
        "probe": {"of": rows.of, **sizes},
    }


def _notes(
    changes: Changes, rows: Probe, dtype: str, *, form: str | None, alone: bool
) -> list[str]:
    """Say what a person should know."""
    notes = [rows.note] if rows.note else []
    if form is not None and not alone:
        notes.append(
            f"the base has its values of 4 bits ({form}), on which the adapters were trained, and "
            "not those of its files"
        )
    if changes.loses():
        remedy = (
            "leave --dtype out" if alone else "write float32 (--dtype), or adapters (--no-merge)"
        )
        notes.append(
            f"rounding to {dtype} undoes a good part of what the adapters have learnt: {remedy}"
        )
    return notes


def _print(to: Path, report: Mapping[str, Any]) -> None:
    """Print the report."""
    console = Console()

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    step = "" if report["step"] is None else f" after step {report['step']}"
    say(
        f"{report['run']}: {report['source']}{step}, {report['form']} in {report['dtype']}, in {to}"
    )
    base = report["base"]
    if base is not None:
        revision = f" at {base['revision']}" if base["revision"] else ""
        began = "trained from" if report["form"] == "weights" else "base:"
        say(f"{began} {base['path']}{revision}")
    table = Table(f"difference of {report['of']}", "largest", "mean", box=box.SIMPLE_HEAD)
    for name, gap in report["difference"].items():
        table.add_row(ABOUT[name], f"{gap['largest']:.3g}", f"{gap['mean']:.3g}")
    console.print(table)
    on = report["probe"]
    say(
        f"measured in float32 on {on['rows']} rows, {on['tokens']} tokens, of {on['of']}; "
        f"{report['of']} spread by {report['spread']:.3g}"
    )
    for note in report["notes"]:
        say(f"note: {note}")
