"""What a page wears: its style sheet and its script, both written into it."""

from __future__ import annotations

from ftkit.tasks.curves.style import DARK, LIGHT


def _colours(palette: tuple[str, ...]) -> str:
    return "".join(f"--c{n}:{colour};" for n, colour in enumerate(palette))


STYLE = f"""
:root{{{_colours(LIGHT)}--ground:#fff;--card:#fff;--ink:#1b1f24;--soft:#5a626d;--rule:#e3e6ea;
--edge:#8a9099;color-scheme:light dark}}
@media(prefers-color-scheme:dark){{:root{{{_colours(DARK)}--ground:#14171b;--card:#1b1f25;
--ink:#dde3ea;--soft:#9aa4b0;--rule:#2b3038;--edge:#6b7480}}}}
{"".join(f".c{n}{{--c:var(--c{n})}}" for n in range(len(LIGHT)))}
*{{box-sizing:border-box}}
body{{font:15px/1.5 system-ui,sans-serif;margin:0 auto;padding:1.5rem 1.25rem 4rem;max-width:84rem;
background:var(--ground);color:var(--ink)}}
h1{{font-size:1.5rem;margin:0 0 .25rem}}h2{{font-size:1.15rem;margin:2.25rem 0 .5rem}}
h3{{font-size:1rem;margin:0 0 .25rem}}p{{margin:.25rem 0;color:var(--soft)}}
.legend{{position:sticky;top:0;z-index:2;list-style:none;display:flex;flex-wrap:wrap;gap:.25rem;
margin:.75rem 0;padding:.4rem 0;background:var(--ground);border-bottom:1px solid var(--rule)}}
.legend button{{font:inherit;color:inherit;text-align:left;background:none;cursor:pointer;
border:1px solid transparent;border-radius:.4rem;padding:.15rem .6rem .15rem .4rem}}
.legend button:hover,.legend button:focus-visible{{border-color:var(--edge)}}
.legend button[aria-pressed=false]{{opacity:.4}}
.legend span,.tip span{{color:var(--soft)}}
.swatch{{width:34px;height:10px;margin-right:.45rem;vertical-align:middle}}
.swatch path{{stroke:var(--c);stroke-width:3;fill:none}}
.measure{{margin:0 0 1.25rem;padding:.75rem .9rem .25rem;border:1px solid var(--rule);
border-radius:.6rem;background:var(--card)}}
.pair{{display:grid;grid-template-columns:repeat(auto-fit,minmax(22rem,1fr));gap:.5rem 1.5rem}}
.pair svg{{width:100%;height:auto;display:block}}
.pair text{{fill:var(--soft);font-size:12px}}
.grid{{stroke:var(--rule)}}.base{{stroke:var(--edge)}}.at{{stroke:var(--edge);stroke-dasharray:3 3}}
.line{{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round}}
.raw{{fill:none;stroke:var(--c);stroke-width:.8;opacity:.3}}
.band{{fill:var(--c);opacity:var(--shade)}}.bar{{stroke:var(--c);stroke-width:1.5;opacity:.6}}
circle{{fill:var(--c)}}
.of.faint{{opacity:.12}}.of.off{{display:none}}
.wide{{overflow-x:auto}}
table{{border-collapse:collapse;font-variant-numeric:tabular-nums}}
td,th{{text-align:left;vertical-align:top;padding:.3rem 1.1rem .3rem 0;
border-bottom:1px solid var(--rule)}}
thead th{{color:var(--soft);font-weight:500;white-space:nowrap}}
td small{{display:block;color:var(--soft);white-space:nowrap}}
tbody th{{font-weight:600;white-space:nowrap}}td.key{{font-family:ui-monospace,monospace}}
td.same{{color:var(--soft)}}
.tip{{position:fixed;z-index:3;pointer-events:none;background:var(--card);font-size:13px;
border:1px solid var(--edge);border-radius:.4rem;padding:.35rem .6rem;max-width:26rem}}
.tip div{{white-space:nowrap}}
"""

SCRIPT = """
'use strict';
const told = JSON.parse(document.getElementById('told').textContent);
const off = new Set();
const all = (what) => [...document.querySelectorAll(what)];
const mark = (name, which) => all('.of').forEach(
  g => g.classList.toggle(name, which(+g.dataset.line)));
all('.legend button').forEach((button, i) => {
  button.addEventListener('click', () => {
    off.has(i) ? off.delete(i) : off.add(i);
    button.setAttribute('aria-pressed', !off.has(i));
    mark('off', n => off.has(n));
  });
  for (const [on, off_] of [['mouseenter', 'mouseleave'], ['focus', 'blur']]) {
    button.addEventListener(on, () => mark('faint', n => n !== i));
    button.addEventListener(off_, () => mark('faint', () => false));
  }
});
const tip = document.createElement('div');
tip.className = 'tip';
tip.hidden = true;
document.body.append(tip);
const short = (v) => Math.abs(v) >= 1e9 ? +(v / 1e9).toPrecision(4) + 'G'
  : Math.abs(v) >= 1e6 ? +(v / 1e6).toPrecision(4) + 'M'
  : Math.abs(v) >= 1e4 ? +(v / 1e3).toPrecision(4) + 'k' : String(+v.toPrecision(4));
const nearest = (xs, x) => {
  let low = 0, high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    xs[middle] < x ? low = middle : high = middle;
  }
  return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
};
all('.pair svg').forEach((svg, n) => {
  const chart = told.charts[n], at = svg.querySelector('.at');
  const leave = () => {
    tip.hidden = true;
    at.setAttribute('x1', -9);
    at.setAttribute('x2', -9);
  };
  svg.addEventListener('pointerleave', leave);
  svg.addEventListener('pointermove', (event) => {
    const box = svg.getBoundingClientRect();
    const pixel = (event.clientX - box.left) / box.width * chart.width;
    const wide = chart.width - chart.left - chart.right;
    if (pixel < chart.left || pixel > chart.left + wide) return leave();
    const x = chart.x[0] + (pixel - chart.left) / wide * (chart.x[1] - chart.x[0]);
    at.setAttribute('x1', pixel);
    at.setAttribute('x2', pixel);
    const rows = chart.lines.filter(line => !off.has(line[0]))
      .map(([i, xs, ys, lows, highs]) => [i, nearest(xs, x), xs, ys, lows, highs])
      .sort((a, b) => b[3][b[1]] - a[3][a[1]]);
    const head = document.createElement('div');
    head.textContent = chart.axis + ' ' + short(chart.axis === 'step' ? Math.round(x) : x);
    tip.replaceChildren(head, ...rows.map(([i, k, xs, ys, lows, highs]) => {
      const row = document.createElement('div'), more = document.createElement('span');
      const swatch = document.querySelectorAll('.legend .swatch')[i].cloneNode(true);
      const value = document.createElement('b');
      value.textContent = short(ys[k]);
      more.textContent = (lows ? ` (${short(lows[k])} to ${short(highs[k])})` : '')
        + `  ${told.names[i]}` + (Math.abs(xs[k] - x) > (chart.x[1] - chart.x[0]) / 50
        ? `, at ${short(xs[k])}` : '');
      row.append(swatch, value, more);
      return row;
    }));
    tip.hidden = false;
    const right = event.clientX + 16 + tip.offsetWidth > innerWidth;
    tip.style.left = (right ? event.clientX - 16 - tip.offsetWidth : event.clientX + 16) + 'px';
    tip.style.top = Math.min(event.clientY + 12, innerHeight - tip.offsetHeight - 8) + 'px';
  });
});
"""
