"""The page of ``edgeinfer plan --report``: one HTML file, drawings inline, nothing fetched."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..runtime.plan import Plan
from ..sizes import format_seconds, format_size

WIDTH, HEIGHT, LEFT, BOTTOM = 1000, 360, 76, 26

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}
svg{width:100%;height:auto;background:#fafafa;border:1px solid #ddd} text{font-size:12px;fill:#444} h2{margin-top:2em}
table{border-collapse:collapse} td,th{padding:2px 14px 2px 0;text-align:right} td:first-child,th:first-child{text-align:left}
rect:hover{stroke:#000;stroke-width:1.5}"""


def _colour(name: str) -> str:
    if name == "scratch":
        return "#c9b458"
    if name == "read-ahead":
        return "#7fb069"
    if name.startswith("workspace:"):
        return "#b08ea2"
    return f"hsl({sum(map(ord, name)) * 47 % 360} 45% 68%)"


def _svg(shapes: Sequence[str], label: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(shapes)}</svg>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, colour: str, title: str) -> str:
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{max(width, 0.5):.2f}" height="{max(height, 0.5):.2f}" fill="{colour}">'
        f"<title>{escape(title)}</title></rect>"
    )


def _frame(top: str, actions: int) -> list[str]:
    floor = HEIGHT - BOTTOM
    return [
        f'<path d="M{LEFT} 8V{floor}H{WIDTH - 8}" fill="none" stroke="#999"/>',
        _text(LEFT - 6, 18, top, "end"),
        _text(LEFT - 6, floor, "0", "end"),
        _text(LEFT, HEIGHT - 8, "first layer"),
        _text(WIDTH - 8, HEIGHT - 8, f"layer {actions}", "end"),
    ]


def memory_map(plan: Plan) -> str:
    """Regions of the arena: offset upwards, layers to the right."""
    actions = max(len(plan.nodes), 1)
    across = (WIDTH - LEFT - 8) / actions
    up = (HEIGHT - BOTTOM - 8) / max(plan.arena_bytes, 1)
    floor = HEIGHT - BOTTOM
    shapes = _frame(format_size(plan.arena_bytes), actions)
    for region in sorted(plan.regions, key=lambda r: -r.nbytes):
        last = min(region.last, actions - 1)
        shapes.append(
            _rect(
                LEFT + region.first * across,
                floor - (region.offset + region.nbytes) * up,
                (last - region.first + 1) * across,
                region.nbytes * up,
                _colour(region.name),
                f"{region.name}: {format_size(region.nbytes)} at {region.offset}, layers {region.first} to {region.last}",
            )
        )
    return _svg(shapes, "memory map of the arena over the layers")


def staircase(plan: Plan) -> str:
    """The batch size of every layer."""
    actions = max(len(plan.nodes), 1)
    across = (WIDTH - LEFT - 8) / actions
    up = (HEIGHT - BOTTOM - 24) / max(plan.batch, 1)
    shapes = _frame(str(plan.batch), actions)
    for segment in plan.segments:
        x = LEFT + segment.first * across
        height = segment.batch * up
        title = f"batch {segment.batch}: {plan.nodes[segment.first]} to {plan.nodes[segment.end - 1]}" if plan.nodes else ""
        shapes.append(_rect(x, HEIGHT - BOTTOM - height, (segment.end - segment.first) * across, height, "#8fb3d9", title))
        shapes.append(_text(x + 4, HEIGHT - BOTTOM - height + 14, str(segment.batch)))
    return _svg(shapes, "batch size of each layer")


def times(plan: Plan) -> str:
    """Expected time of every layer per image."""
    most = max(plan.node_ms, default=0.0) or 1.0
    across = (WIDTH - LEFT - 8) / max(len(plan.node_ms), 1)
    shapes = _frame(format_seconds(most / 1e3), len(plan.node_ms))
    for number, milliseconds in enumerate(plan.node_ms):
        height = milliseconds / most * (HEIGHT - BOTTOM - 24)
        title = f"{plan.nodes[number]}: {format_seconds(milliseconds / 1e3)} per image"
        shapes.append(_rect(LEFT + number * across, HEIGHT - BOTTOM - height, across * 0.9, height, "#d98f7a", title))
    return _svg(shapes, "expected time of each layer")


def page(plan: Plan) -> str:
    """The whole page."""
    parts = [
        ("Python and libraries, measured", plan.baseline_rss),
        ("compressed weights in memory", plan.compressed_resident_bytes),
        ("decoded weights in memory", plan.decoded_bytes),
        ("decode tables, row scales", plan.table_bytes),
        ("arena", plan.arena_bytes),
        ("inputs and outputs", plan.io_bytes),
        ("threads, temporaries", plan.other_bytes),
        ("predicted peak of the process", plan.predicted_peak_rss),
    ]
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{format_size(size)}</td><td>{size}</td></tr>" for name, size in parts)
    limits = [
        f"memory limit {format_size(plan.memory_limit) if plan.memory_limit else 'none'}",
        f"smallest ceiling {format_size(plan.smallest_ceiling)}",
        f"latency limit {format_seconds(plan.latency_limit) if plan.latency_limit else 'none'}",
        f"{plan.requested} image(s) in rounds of {plan.batch}",
        f"expected {format_seconds(plan.predicted_ms_per_image / 1e3)} per image",
        f"{plan.threads} thread(s), {plan.kernels}",
    ]
    if plan.streamed_bytes:
        limits.append(f"{format_size(plan.streamed_bytes)} read from storage per round")
    title = f"Plan of {plan.model}"
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>
<h1>{escape(title)}</h1><p>{escape("; ".join(limits))}</p>
<table><tr><th>bytes of</th><th></th><th>bytes</th></tr>{rows}</table>
<h2>Arena over time</h2><p>Every rectangle is a region: as high as it is large, as wide as the layers during which it lives.</p>
{memory_map(plan)}
<h2>Batch size of each layer</h2><p>A layer waits until the buffer before it holds as many images as its step is high.</p>
{staircase(plan)}
<h2>Expected time of each layer</h2><p>Per image.</p>
{times(plan)}
</html>
"""
