"""Reports of tuning as one HTML page that needs nothing else: tables and line charts in inline SVG."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}table{border-collapse:collapse;margin:1em 0}"
    "td,th{border-bottom:1px solid #ccc;padding:.2em .7em;text-align:right}td:first-child,th:first-child{text-align:left}"
    "svg{background:#fafafa;margin:.5em 0}svg text{font:12px sans-serif;fill:#444}"
)
_COLOURS = ("#0b5fa5", "#c4471c", "#2f7d32", "#7a3e9d")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 300, 60, 40


@dataclass(frozen=True)
class Line:
    """A named line of a chart; ``x`` and ``y`` have the same length. ``marks``: draw the points only."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    marks: bool = False


def _ticks(low: float, high: float) -> list[float]:
    return [low + (high - low) * i / 4 for i in range(5)]


def chart(title: str, x_axis: str, y_axis: str, lines: Sequence[Line]) -> str:
    """A line chart as SVG. Raises ValueError where there is no point to draw."""
    xs = [v for line in lines for v in line.x]
    ys = [v for line in lines for v in line.y]
    if not xs:
        raise ValueError(f"chart {title!r} has no points")
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
    x1, y1 = (x1 if x1 > x0 else x0 + 1.0), (y1 if y1 > y0 else y0 + 1.0)

    def across(v: float) -> float:
        return _LEFT + (v - x0) / (x1 - x0) * (_WIDTH - _LEFT - 20)

    def up(v: float) -> float:
        return _HEIGHT - _BOTTOM - (v - y0) / (y1 - y0) * (_HEIGHT - _BOTTOM - 30)

    out = [f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{html.escape(title)}">']
    out.append(f'<text x="{_LEFT}" y="16" font-weight="bold">{html.escape(title)}</text>')
    for v in _ticks(y0, y1):
        out.append(f'<line x1="{_LEFT}" x2="{_WIDTH - 20}" y1="{up(v):.1f}" y2="{up(v):.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{_LEFT - 6}" y="{up(v) + 4:.1f}" text-anchor="end">{v:.4g}</text>')
    for v in _ticks(x0, x1):
        out.append(f'<text x="{across(v):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{v:.4g}</text>')
    out.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{html.escape(x_axis)}</text>')
    out.append(f'<text x="14" y="{_HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 14 {_HEIGHT / 2})">{html.escape(y_axis)}</text>')
    for number, line in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [(across(x), up(y)) for x, y in zip(line.x, line.y, strict=True)]
        if not line.marks:
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{5 if line.marks else 2.5}" fill="{colour}"/>' for x, y in places]
        out.append(
            f'<text x="{_WIDTH - 24}" y="{36 + 16 * number}" text-anchor="end" style="fill:{colour}">{html.escape(line.name)}</text>'
        )
    return "\n".join([*out, "</svg>"])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; cells are text."""

    def line(cells: Sequence[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{html.escape(c)}</{kind}>" for c in cells) + "</tr>"

    return "\n".join(["<table>", line(header, "th"), *(line(r, "td") for r in rows), "</table>"])


def page(title: str, parts: Sequence[str]) -> str:
    """The whole page; ``parts`` are HTML already, see :func:`paragraph`, :func:`table`, :func:`chart`."""
    name = html.escape(title)
    head = f'<meta charset="utf-8"><title>{name}</title><style>{_STYLE}</style>'
    return "\n".join(["<!doctype html>", f'<html lang="en"><head>{head}</head><body>', f"<h1>{name}</h1>", *parts, "</body></html>", ""])


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"
