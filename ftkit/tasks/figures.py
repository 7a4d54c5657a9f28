"""What ``ftkit eval`` prints: figures with their intervals, and how answers are ranked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from ftkit.core.intervals import Estimate
    from ftkit.train.evaluation import Measures

ABOUT = {
    "loss": "nats a token",
    "nll": "nats a token (chosen)",
    "perplexity": "e to the nats a token",
    "reward_accuracy": "in the right order",
    "reward_auc": "mean AUC of a prompt",
    "reward_hardest": "above all negatives",
    "margin": "score difference",
    "exact_match": "greedy answers right",
    "length": "tokens a greedy answer",
    "truncated": "greedy answers cut by the limit",
    "exact_match_sampled": "sampled answers right",
    "length_sampled": "tokens a sampled answer",
    "truncated_sampled": "sampled answers cut by the limit",
}
"""What each figure is, in words."""

OWN_LOSS = "of the method, a pair"
"""What the loss is where the method learns from pairs."""

RANKING = ("reward_accuracy", "reward_auc", "reward_hardest", "margin")
"""Figures that each source has for itself."""


def report(model: str, found: Measures) -> None:
    """Print what was found.

    Args:
        model: what was measured.
        found: figures, counts and verdicts.
    """
    console = Console()

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    say(f"{model}: {found.n:,} rows, {found.tokens:,} trained tokens")
    table = Table("", "value", "95 % interval", "", box=box.SIMPLE_HEAD)
    table.columns[2].no_wrap = True
    own = {"loss": OWN_LOSS} if _learns_from_pairs(found.figures) else {}
    for name, figure in found.figures.items():
        table.add_row(name, *_cells(figure.to_json()), own.get(name) or about(name))
    console.print(table)
    if found.ranking is not None:
        for line in _ranking(found.ranking):
            say(line)
        if len(found.ranking["by_source"]) > 1:
            console.print(_sources(found.ranking["by_source"]))
    for name, counts in found.verdicts.items():
        told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        say(f"{name}: {told}")


def about(name: str) -> str:
    """Say what a figure is.

    >>> about("pass@4")
    'one of 4 sampled answers right'
    """
    if name.startswith("pass@"):
        return f"one of {name.removeprefix('pass@')} sampled answers right"
    return ABOUT[name]


def _learns_from_pairs(figures: Mapping[str, Estimate]) -> bool:
    """Whether the loss is that of a method on pairs: it stands beside ``nll``, or there is none."""
    return "nll" in figures or "perplexity" not in figures


def _cells(figure: Mapping[str, Any]) -> tuple[str, str]:
    """Return value and interval, as ``Estimate.to_json`` has them, in words."""
    value, interval = figure["value"], figure["interval"]
    shown = "no number" if value is None else f"{value:.4g}"
    return shown, "{:.4g} to {:.4g}".format(*interval) if interval else "unknown"


def _ranking(ranking: Mapping[str, Any]) -> Iterable[str]:
    """Yield what else there is to say of how answers are ranked."""
    beta = ranking.get("beta", 1.0)
    by = ranking["score"] if beta == 1 else f"{beta:g} {ranking['score']}"
    prompts, pairs, ties = (ranking[of] for of in ("prompts", "pairs", "ties"))
    halves = " (one half each)" if ties else ""
    yield f"ranked by {by}: {prompts:,} prompts, {pairs:,} pairs, {ties:,} ties{halves}"
    quantiles = ranking["margin_quantiles"]
    told = (f"{name[1:]} %: {value:.4g}" for name, value in quantiles.items())
    yield f"margins, quantiles: {', '.join(told)}"


def _sources(sources: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a table of the figures of each source."""
    table = Table("source", "", "value", "95 % interval", "pairs", "ties", box=box.SIMPLE_HEAD)
    for source, found in sources.items():
        first = (escape(source), str(found["pairs"]), str(found["ties"]))
        for name in (name for name in RANKING if name in found):
            table.add_row(first[0], name, *_cells(found[name]), *first[1:])
            first = ("", "", "")
    return table
