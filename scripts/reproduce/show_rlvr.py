"""The tables and the figure of what ``rlvr.py`` found."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scripts.reproduce.chart import Dots, Line, Mark, Panel, Whisker, figure
from scripts.reproduce.page import mean, table

Found = Mapping[str, Sequence[Mapping[str, Any]]]
"""For ``start`` and each method, what was found with each seed."""

COLOURS = {
    "grpo": "#1f6fb4",
    "dr_grpo": "#5aa0d8",
    "dapo": "#0b3d66",
    "gpg": "#79b8a0",
    "gspo": "#2f8f6b",
    "cispo": "#145c43",
    "grpo_er": "#8a8a8a",
    "disco log-L": "#b3312c",
    "disco L-ratio": "#e0762f",
    "ppo": "#8c5aa8",
    "trpo": "#c9a227",
}
SHARES = {"exact_match": "exact match, greedy", "exact_match_sampled": "exact match, sampled"}
CURVES = {"reward": "reward", "entropy": "entropy (nats a token)", "kl": "KL from π_old (nats)"}


def tables(found: Found) -> str:
    """Return a table: means over seeds, and differences to grpo of the same seed."""
    rows = []
    for name, runs in found.items():
        row = [name]
        for key in SHARES:
            row.append(mean([run[key] for run in runs]).percent())
            if name in {"start", "grpo"} or "grpo" not in found:
                row.append("")
                continue
            gains = [run[key] - base[key] for run, base in zip(runs, found["grpo"], strict=True)]
            row.append(mean(gains).percent(sign=True))
        if name == "start":
            rows.append([*row, "", ""])
            continue
        entropy = mean([run["curve"]["entropy"][-1] for run in runs]).value
        seconds = mean([run["seconds"] for run in runs]).value
        rows.append([*row, f"{entropy:.2f}", f"{seconds:.0f}"])
    head = ["per cent"]
    for title in SHARES.values():
        head += [title, "less grpo"]
    return table([*head, "entropy at the end", "CPU s"], rows)


def tried(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return a table of what the search found, for each method and its candidates."""
    rows = [
        [name, told, *(f"{100 * run[key]:.1f}" for key in SHARES)]
        for name, candidates in found.items()
        for told, run in candidates.items()
    ]
    return table(["method", "constants", *SHARES.values()], rows)


def draw(found: Found) -> str:
    """Return the figure: curves of training above, what held-out sums say of the ends below."""
    methods = {name: runs for name, runs in found.items() if name != "start"}
    above = [_curves(methods, key, title) for key, title in CURVES.items()]
    below = [_ends(methods, key, title) for key, title in SHARES.items()]
    about = "Reward, entropy, KL and held-out accuracy of methods that learn from a verifier"
    return figure([above, below], about)


def _curves(methods: Found, key: str, title: str) -> Panel:
    marks: list[Mark] = []
    for name, runs in methods.items():
        known = [run["curve"] for run in runs if key in run["curve"]]
        if known:
            means = [statistics.fmean(at) for at in zip(*(c[key] for c in known), strict=True)]
            points = list(zip(known[0]["step"], means, strict=True))
            marks.append(Line(COLOURS[name], name, points, width=1.6))
    return Panel("training, mean over seeds", "step", title, marks)


def _ends(methods: Found, key: str, title: str) -> Panel:
    marks = list(_whiskers(methods, key))
    return Panel("held out, each seed", "", f"{title} (%)", marks, x_names=[""] * len(methods))


def _whiskers(methods: Found, key: str) -> Iterator[Mark]:
    for at, (name, runs) in enumerate(methods.items()):
        values = [100 * run[key] for run in runs]
        yield Dots(COLOURS[name], "", [(at - 0.2, value) for value in values], radius=2.0)
        found = mean(values)
        reach = found.reach or 0.0
        whisker = (at + 0.2, found.value, found.value - reach, found.value + reach)
        yield Whisker(COLOURS[name], "", whisker)
