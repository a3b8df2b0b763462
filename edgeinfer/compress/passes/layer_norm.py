"""The mean, difference, square, mean, root and quotient that older exporters write -> LayerNormalization over the last axis."""

from __future__ import annotations

import numpy as np

from ...graph import Node
from ..draft import Draft, Shapes
from .sweep import Sweep, sweep


def run(draft: Draft) -> None:
    """Find LayerNormalization."""
    shapes = draft.shapes()
    sweep(draft, lambda walk, node: _match(walk, node, shapes))


def _match(walk: Sweep, node: Node, shapes: Shapes) -> bool:
    # (x - mean) / sqrt(mean((x - mean)^2) + epsilon) * scale + shift, from its last Add backwards
    if node.op != "Add" or node.attrs:
        return False
    product, shift = _with_constant(walk, node)
    scaled = walk.producer(product) if product else None
    if scaled is None or scaled.op != "Mul" or scaled.attrs or not walk.sole(product):
        return False
    quotient, scale = _with_constant(walk, scaled)
    normed = walk.producer(quotient) if quotient else None
    if normed is None or normed.op != "Div" or normed.attrs or not walk.sole(quotient):
        return False
    centred, deviation = normed.inputs
    x = _centred(walk, centred, shapes)
    root = walk.producer(deviation)
    if x is None or root is None or root.op != "Sqrt":
        return False
    summed = walk.producer(root.inputs[0])
    if summed is None or summed.op != "Add" or summed.attrs:
        return False
    variance, epsilon = _with_constant(walk, summed)
    number = walk.draft.scalar(epsilon) if epsilon else None
    squares = _mean_of(walk, variance, shapes) if variance else None
    square = walk.producer(squares) if squares else None
    if number is None or square is None or not _is_square(walk, square, centred):
        return False
    length = shapes.fixed(x)[-1]
    vectors = [walk.draft.weights[name] for name in (scale, shift)]
    if any(v.shape != (length,) or v.dtype != np.float32 for v in vectors):
        return False
    walk.append(Node("LayerNormalization", node.name, (x, scale, shift), node.outputs, {"axis": -1, "epsilon": number}))
    return True


def _with_constant(walk: Sweep, node: Node) -> tuple[str, str]:
    """``(tensor, constant)`` of a node with one of each, else empty names."""
    a, b = node.inputs
    if b in walk.draft.weights and a not in walk.draft.weights:
        return a, b
    if a in walk.draft.weights and b not in walk.draft.weights:
        return b, a
    return "", ""


def _mean_of(walk: Sweep, name: str, shapes: Shapes) -> str | None:
    """``x`` if the tensor is the mean of ``x`` over its last axis, kept."""
    node = walk.producer(name)
    if node is None or node.op != "ReduceMean" or not node.attrs.get("keepdims", 1):
        return None
    axes = node.attrs.get("axes")
    rank = shapes.rank(node.inputs[0])
    return node.inputs[0] if axes is not None and [a % rank for a in axes] == [rank - 1] else None


def _centred(walk: Sweep, name: str, shapes: Shapes) -> str | None:
    node = walk.producer(name)
    if node is None or node.op != "Sub" or node.attrs:
        return None
    return node.inputs[0] if _mean_of(walk, node.inputs[1], shapes) == node.inputs[0] else None


def _is_square(walk: Sweep, node: Node, of: str) -> bool:
    if node.op == "Mul":
        return node.inputs == (of, of)
    return node.op == "Pow" and node.inputs[0] == of and walk.draft.scalar(node.inputs[1]) == 2.0
