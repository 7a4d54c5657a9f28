"""RUN/report.html: what happened, as pictures, in one file that needs nothing else."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, LEFT, BOTTOM = 460, 220, 56, 26
NO_CURVE = {"step", "n", "tokens", "trained", "seconds"}
"""Numbers of a line that say how much was done and not how well."""
STYLE = """
body{font:14px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;
background:#fff;color:#1b1f24}
figure{display:inline-block;margin:0 1rem 1rem 0}figcaption{font-weight:600}
svg{max-width:100%}path{fill:none;stroke:#2563a8;stroke-width:1.6}circle{fill:#2563a8}
line{stroke:#8888;stroke-width:1}text{fill:currentColor;font-size:11px}
td,th{text-align:left;padding:.1rem 1rem .1rem 0}
@media(prefers-color-scheme:dark){body{background:#14171b;color:#dde3ea}path{stroke:#7db4ee}
circle{fill:#7db4ee}}
"""


def write_report(run: Path) -> None:
    """Write RUN/report.html from the run's own files."""
    trained, measured = _series(run / "metrics.jsonl", ""), _series(run / "eval.jsonl", "eval.")
    loss = {"loss": trained.pop("loss")} if "loss" in trained else {}
    series = {**loss, **measured, **trained}
    summary = json.loads((run / "summary.json").read_text())
    rows = "".join(
        f"<tr><th>{html.escape(str(key))}</th><td>{html.escape(_short(value))}</td></tr>"
        for key, value in summary.items()
    )
    figures = "".join(
        f"<figure><figcaption>{html.escape(name)}</figcaption>{chart(points)}</figure>"
        for name, points in series.items()
    )
    title = html.escape(run.name)
    (run / "report.html").write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<style>{STYLE}</style><h1>{title}</h1><table>{rows}</table>{figures}</html>\n"
    )


def chart(points: Sequence[tuple[float, float]]) -> str:
    """Return a line through points (step, value) as an SVG, axes with their ends named."""
    steps, values = [p[0] for p in points], [p[1] for p in points]
    low, high = min(values), max(values)
    spread = (high - low) or abs(high) or 1.0
    first, last = min(steps), max(steps)

    def place(step: float, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - 8) * (step - first) / ((last - first) or 1)
        y = (HEIGHT - BOTTOM) - (HEIGHT - BOTTOM - 10) * (value - low) / spread
        return f"{x:.1f} {y:.1f}"

    path = "M" + "L".join(place(*point) for point in points)
    dot = place(*points[-1]).split()
    base = HEIGHT - BOTTOM
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f'<line x1="{LEFT}" y1="{base}" x2="{WIDTH}" y2="{base}"/>'
        f'<line x1="{LEFT}" y1="10" x2="{LEFT}" y2="{base}"/>'
        f'<path d="{path}"/><circle cx="{dot[0]}" cy="{dot[1]}" r="2.5"/>'
        f'<text x="{LEFT - 4}" y="14" text-anchor="end">{high:.3g}</text>'
        f'<text x="{LEFT - 4}" y="{base}" text-anchor="end">{low:.3g}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 8}">step {first:g}</text>'
        f'<text x="{WIDTH - 4}" y="{HEIGHT - 8}" text-anchor="end">{last:g}</text></svg>'
    )


def _series(path: Path, prefix: str) -> dict[str, list[tuple[float, float]]]:
    """Return every measure of a JSONL file as points (step, value)."""
    series: dict[str, list[tuple[float, float]]] = {}
    if not path.is_file():
        return series
    for line in path.read_text().splitlines():
        row: dict[str, Any] = json.loads(line)
        if "seconds" in row:
            row["tokens a second"] = row["tokens"] / max(row["seconds"], 1e-9)
        for name, value in row.items():
            number = value.get("value") if isinstance(value, dict) else value
            if name not in NO_CURVE and isinstance(number, int | float):
                series.setdefault(prefix + name, []).append((row["step"], float(number)))
    return series


def _short(value: Any) -> str:
    """Put a value of the summary in a line.

    >>> _short({"n": 3, "loss": {"value": 1.23456, "interval": [1.0, 1.5]}})
    'n 3, loss 1.235 (1 to 1.5)'
    """
    if isinstance(value, dict) and "value" in value and "interval" in value:
        interval = value["interval"]
        span = f" ({interval[0]:.4g} to {interval[1]:.4g})" if interval else ""
        return f"{value['value']:.4g}{span}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(inner)}" for name, inner in value.items())
    return f"{value:,}" if isinstance(value, int | float) else str(value or "none")
