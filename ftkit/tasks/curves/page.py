"""The HTML page: the same picture, to be pointed at, and the tables beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape

from ftkit.tasks.curves.chart import chart, dashes
from ftkit.tasks.curves.dress import SCRIPT, STYLE
from ftkit.tasks.curves.line import TITLES, Figure, Line
from ftkit.tasks.curves.style import Look, short

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""A browser then loads nothing from elsewhere."""


def page(
    lines: Sequence[Line],
    measures: Sequence[str],
    differ: Mapping[str, Sequence[str]],
    notes: Sequence[str],
    maker: str,
) -> str:
    """Return the page.

    Args:
        lines: what to draw.
        measures: two charts each.
        differ: keys of recipes, with what they are for each line.
        notes: what there is to say of the drawing and of the runs.
        maker: what is written into the page as the program that made it.
    """
    told: list[object] = []
    sections = []
    for name in measures:
        svgs = []
        for axis in ("step", "tokens"):
            svg, numbers = chart(lines, name, axis)
            svgs.append(svg)
            told.append(numbers)
        title = escape(TITLES.get(name, name))
        pair = f'<div class="pair">{"".join(svgs)}</div>'
        sections.append(f'<section class="measure"><h3>{title}</h3>{pair}</section>')
    blob = json.dumps({"names": [line.label for line in lines], "charts": told})
    blob = blob.replace("<", "\\u003c")  # no text in it can end the script
    remarks = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="generator" content="{escape(maker)}">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>Training dynamics: {escape(", ".join(line.label for line in lines))}</title>
<style>{STYLE}</style></head><body>
<h1>Training dynamics</h1>
<p>Point at a chart to read its values; press a name to hide its line.</p>
<ul class="legend">{"".join(_entry(n, line) for n, line in enumerate(lines))}</ul>
{"".join(sections)}
<h2>Final figures</h2>{_finals(lines, measures)}
<h2>What differs between the recipes</h2>{_differences(lines, differ)}
<h2>Notes</h2><ul>{remarks}</ul>
<script type="application/json" id="told">{blob}</script>
<script>{SCRIPT}</script>
</body></html>
"""


def _entry(index: int, line: Line) -> str:
    """Return a line's entry of the legend."""
    said = f"<b>{escape(line.label)}</b> <span>{escape(line.detail)}</span>"
    return f'<li><button aria-pressed="true">{_swatch(index)}{said}</button></li>'


def _swatch(index: int) -> str:
    look = Look.of(index)
    return (
        f'<svg class="swatch c{look.colour}" viewBox="0 0 34 10" aria-hidden="true">'
        f'<path d="M0 5H34"{dashes(look)}/></svg>'
    )


def _finals(lines: Sequence[Line], measures: Sequence[str]) -> str:
    """Return the table of where each line ends up."""
    names = "".join(f"<th>{escape(TITLES.get(name, name))}</th>" for name in measures)
    rows = []
    for index, line in enumerate(lines):
        cells = "".join(f"<td>{_cell(line.finals.get(name))}</td>" for name in measures)
        rows.append(
            f"<tr><th>{_swatch(index)}{escape(line.label)}</th><td>{len(line.runs)}</td>"
            f"<td>{line.steps:,}</td><td>{short(line.tokens)}</td>{cells}</tr>"
        )
    head = f"<th></th><th>runs</th><th>steps</th><th>tokens</th>{names}"
    return _table(head, rows)


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "\u2014"
    low_high = figure.interval
    span = f"<small>{low_high[0]:.4g} to {low_high[1]:.4g}</small>" if low_high else ""
    return f"{figure.value:.4g}{span}"


def _differences(lines: Sequence[Line], differ: Mapping[str, Sequence[str]]) -> str:
    """Return the table of the keys that differ."""
    if not differ:
        return "<p>Nothing but where they lie.</p>"
    rows = []
    for key, values in differ.items():
        cells = "".join(f'<td class="key">{escape(value)}</td>' for value in values)
        rows.append(f'<tr><td class="key">{escape(key)}</td>{cells}</tr>')
    names = "".join(
        f"<th>{_swatch(index)}{escape(line.label)}</th>" for index, line in enumerate(lines)
    )
    return _table(f"<th></th>{names}", rows)


def _table(head: str, rows: Sequence[str]) -> str:
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="wide"><table>{body}</table></div>'
