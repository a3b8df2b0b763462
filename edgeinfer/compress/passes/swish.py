"""``x * Sigmoid(x)`` -> Silu; ``x * HardSigmoid(x)`` and ``x * Clip(x + 3, 0, 6) / 6`` -> HardSwish."""

from __future__ import annotations

from math import isclose

from ...graph import Node
from ..draft import Draft
from .sweep import Sweep, sweep


def run(draft: Draft) -> None:
    """Find Silu and HardSwish."""
    sweep(draft, _match)


def _match(walk: Sweep, node: Node) -> bool:
    number, node_in = 1.0, node
    if node.op in ("Div", "Mul") and not node.attrs:  # the division by 6 may come last
        for inner, c in (node.inputs, node.inputs[::-1]):
            scalar = walk.draft.scalar(c)
            before = walk.producer(inner)
            if scalar and before is not None and before.op == "Mul" and walk.sole(inner) and (node.op == "Mul" or c == node.inputs[1]):
                number, node_in = (1 / scalar if node.op == "Div" else scalar), before
                break
    if node_in.op != "Mul" or node_in.attrs:
        return False
    for x, gate in (node_in.inputs, node_in.inputs[::-1]):
        op = _gate(walk, gate, x, number)
        if op is not None:
            walk.append(Node(op, node.name, (x,), node.outputs))
            return True
    return False


def _gate(walk: Sweep, name: str, x: str, number: float) -> str | None:
    node = walk.producer(name)
    if node is None:
        return None
    if node.op == "Sigmoid" and node.inputs[0] == x:
        return "Silu" if number == 1.0 else None
    if node.op == "HardSigmoid" and node.inputs[0] == x:
        alpha, beta = node.attrs.get("alpha", 0.2), node.attrs.get("beta", 0.5)
        return "HardSwish" if number == 1.0 and isclose(alpha, 1 / 6, rel_tol=1e-5) and beta == 0.5 else None
    if node.op in ("Div", "Mul") and walk.draft.scalar(node.inputs[1]):
        scalar = walk.draft.scalar(node.inputs[1]) or 1.0
        return _clipped(walk, node.inputs[0], x, number * (1 / scalar if node.op == "Div" else scalar))
    return _clipped(walk, name, x, number)


def _clipped(walk: Sweep, name: str, x: str, number: float) -> str | None:
    clip = walk.producer(name)
    if clip is None or clip.op != "Clip" or clip.attrs.get("min") != 0 or clip.attrs.get("max") != 6:
        return None
    shifted = walk.producer(clip.inputs[0])
    if shifted is None or shifted.op != "Add" or shifted.attrs or not isclose(number, 1 / 6, rel_tol=1e-5):
        return None
    for a, c in (shifted.inputs, shifted.inputs[::-1]):
        if a == x and walk.draft.scalar(c) == 3.0:
            return "HardSwish"
    return None
