"""The report of ``bench`` as one HTML page: tables and SVG charts, no script, nothing loaded from anywhere."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from .. import __version__
from ..sizes import format_seconds, format_size

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1b1f24;background:#fff;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem;border-bottom:1px solid #d0d7de}
table{border-collapse:collapse;margin:.5rem 0}td,th{padding:.15rem .8rem .15rem 0;text-align:right;vertical-align:top}
td:first-child,th:first-child,td.l,th.l{text-align:left}th{font-weight:600;border-bottom:1px solid #d0d7de}
svg{max-width:100%;height:auto;display:block;margin:.5rem 0}svg text{font:12px system-ui,sans-serif;fill:#1b1f24}
p.note{color:#57606a;margin:.2rem 0}
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}svg text{fill:#e6edf3}p.note{color:#8b949e}}
"""
COLOURS = ("#2f6fb2", "#d97a1f", "#3f9a5a", "#a04fa0", "#8a8f98")
WIDTH = 720


def page(measured: dict[str, Any], layers: Sequence[dict[str, Any]], times: Sequence[float]) -> str:
    """The page for the document of ``bench``, the layers of one profiled run (ms) and the seconds of each run."""
    from . import bench, measurement

    rss, latency = measured["rss_bytes"], measured["latency_ms"]
    board = measured["board"]
    facts = [
        ("model", measured["model"]),
        ("board", board["name"] or "not reported"),
        ("memory of the board", format_size(board["memory_bytes"]) if board["memory_bytes"] else "not reported"),
        ("kernels", measured["kernels"]),
        ("threads, batch", f"{measured['threads']}, {measured['batch']}"),
        ("runs", str(measured["runs"])),
        ("rate", f"{measured['throughput_per_s']:.1f} samples per second"),
        ("faults while measuring", f"{measured['faults']['major']} major, {measured['faults']['minor']} minor"),
    ]
    facts += [tuple(line.split(None, 1)) for line in measurement.surroundings_lines(measured)]  # type: ignore[misc]
    parts = [_rows(facts)]
    parts += ["<h2>Latency</h2>", f"<p>{_text(measurement.latency_line(latency))}</p>", _histogram([t * 1e3 for t in times])]
    parts += [
        "<h2>Memory</h2>",
        _bars(
            [
                (name, rss[key], format_size(rss[key]))
                for name, key in (
                    ("before the model was opened", "baseline"),
                    ("predicted peak", "predicted_peak"),
                    ("measured peak", "peak"),
                    ("ceiling", "ceiling"),
                )
                if rss[key]
            ]
            + [
                (f"{name}, measured peak", peer["rss_bytes"]["peak"], format_size(peer["rss_bytes"]["peak"]))
                for name, peer in measured["against"].items()
            ]
        ),
        *(f"<p>{_text(line.split(None, 1)[1])}</p>" for line in measurement.memory_lines(measured)),
        f"<p>At the end {format_size(rss['anonymous'])} were anonymous and {format_size(rss['file'])} pages of files.</p>",
    ]
    parts += [
        "<h2>Decoding and computing</h2>",
        _bars(
            [
                ("in the layers of one run", measured["compute_ms"], format_seconds(measured["compute_ms"] / 1e3)),
                ("decoding every weight once, alone, on one thread", measured["decode_ms"], format_seconds(measured["decode_ms"] / 1e3)),
            ]
        ),
        '<p class="note">In a run, decoding happens inside the multiplication and is part of the first number.</p>',
    ]
    if measured["cold_start_ms"] is not None:
        cold = measured["cold_start_ms"]
        spans = (("process", "Python starts"), ("import", "import"), ("open", "load, check and plan"), ("first", "first run"))
        parts += [
            "<h2>Cold start</h2>",
            _bars([(name, cold[key], format_seconds(cold[key] / 1e3)) for key, name in spans]),
            f"<p>{_text(bench.cold_start_line(cold))}</p>",
        ]
    if measured["batches"]:
        runs = [each for each in measured["batches"] if "error" not in each]
        parts += [
            "<h2>Batch sizes</h2>",
            _bars(
                [
                    (f"batch {each['batch']}", each["throughput_per_s"], f"{each['throughput_per_s']:.1f} samples per second")
                    for each in runs
                ]
            ),
            _table(*bench.batch_rows(measured["batches"])),
        ]
    if measured["against"]:
        parts.append("<h2>Peers</h2>")
        header = ["runtime", "least", "median", "99 %", "load", "peak", "our median / theirs", "our peak / theirs"]
        rows = [
            [
                "edgeinfer " + __version__,
                *_latency_cells(latency),
                format_seconds(measured["load_ms"] / 1e3),
                format_size(rss["peak"]),
                "",
                "",
            ]
        ]
        for name, peer in measured["against"].items():
            cells = [*_latency_cells(peer["latency_ms"]), format_seconds(peer["load_ms"] / 1e3), format_size(peer["rss_bytes"]["peak"])]
            rows.append([f"{name} {peer['version']}", *cells, f"{peer['latency_ratio_p50']:.2f}", f"{peer['rss_ratio']:.2f}"])
        parts += [_table(header, rows), '<p class="note">Same inputs, alternating turns of a quarter of a second, a process each.</p>']
    slowest = sorted(layers, key=lambda layer: -layer["ms"])[:20]
    total = sum(layer["ms"] for layer in layers) or 1.0
    parts += [
        "<h2>Slowest layers of one run</h2>",
        _bars(
            [
                (f"{layer['name']} ({layer['op']})", layer["ms"], f"{format_seconds(layer['ms'] / 1e3)}, {layer['ms'] / total:.0%}")
                for layer in slowest
            ]
        ),
    ]
    title = f"edgeinfer bench: {_text(measured['model'])}"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _rows(pairs: Sequence[tuple[str, str]]) -> str:
    cells = "".join(f'<tr><td>{_text(name)}</td><td class="l">{_text(value)}</td></tr>' for name, value in pairs)
    return f"<table>{cells}</table>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _latency_cells(latency: dict[str, float]) -> list[str]:
    return [format_seconds(latency[key] / 1e3) for key in ("min", "p50", "p99")]


def _bars(values: Sequence[tuple[str, float, str]]) -> str:
    """Horizontal bars: label, length, what is written at the end."""
    most = max((value for _, value, _ in values), default=0) or 1.0
    left, row = 300, 22
    parts = [f'<svg viewBox="0 0 {WIDTH} {row * len(values)}" role="img">']
    for index, (label, value, words) in enumerate(values):
        y = index * row
        length = (WIDTH - left - 170) * value / most
        shown = label if len(label) <= 44 else label[:20] + "..." + label[-21:]
        parts.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{_text(shown)}</text>')
        parts.append(f'<rect x="{left}" y="{y + 3}" width="{length:.1f}" height="{row - 6}" fill="{COLOURS[0]}"/>')
        parts.append(f'<text x="{left + length + 6:.1f}" y="{y + 15}">{_text(words)}</text>')
    return "".join(parts) + "</svg>"


def _histogram(values: Sequence[float], bins: int = 48) -> str:
    """How often a run took how many milliseconds. Runs beyond the 99th percentile share the last bin: one hiccup would flatten all."""
    ordered = sorted(values)
    low = ordered[0]
    high = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    step = (high - low) / bins or 1e-9
    counts = [0] * (bins + 1)
    for value in ordered:
        counts[min(int((value - low) / step), bins)] += 1
    height, most = 140, max(counts)
    bar = (WIDTH - 20) / len(counts)
    parts = [f'<svg viewBox="0 0 {WIDTH} {height + 24}" role="img">']
    for index, number in enumerate(counts):
        tall = height * number / most
        colour = COLOURS[1] if index == bins else COLOURS[0]
        parts.append(
            f'<rect x="{10 + index * bar:.1f}" y="{height - tall:.1f}" width="{bar - 1:.1f}" height="{tall:.1f}" fill="{colour}"/>'
        )
    parts.append(f'<text x="10" y="{height + 16}">{_text(format_seconds(low / 1e3))}</text>')
    end = f"{format_seconds(high / 1e3)} and more (most {format_seconds(ordered[-1] / 1e3)})"
    parts.append(f'<text x="{WIDTH - 10}" y="{height + 16}" text-anchor="end">{_text(end)}</text>')
    return "".join(parts) + "</svg>"
