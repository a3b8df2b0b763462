"""Scales and shifts per output channel go into the weights of the Conv or Gemm before them, or into one BatchNormalization.

Taken in: BatchNormalization, and Mul, Div, Add, Sub with a constant that varies along the last axis only (this also gives a product its
bias). The weights are computed in double precision and rounded once.
"""

from __future__ import annotations

import numpy as np

from ...graph import Node
from ..draft import Draft, Shapes
from .sweep import Sweep, sweep

_ARITHMETIC = ("Mul", "Div", "Add", "Sub")


def run(draft: Draft) -> None:
    """Fold scales and shifts."""
    shapes = draft.shapes()
    sweep(draft, lambda walk, node: _fold(walk, node, shapes))


def _fold(walk: Sweep, node: Node, shapes: Shapes) -> bool:
    found = _affine(walk.draft, node, shapes)
    if found is None:
        return False
    x, scale, shift = found
    target = walk.producer(x)
    if target is None or not walk.sole(x) or "activation" in target.attrs or len(target.inputs) > 3:
        return False
    if target.op in ("Conv", "Gemm"):
        merged = _into_product(walk.draft, target, node, scale, shift)
    elif target.op == "BatchNormalization":
        merged = _into_batch_norm(walk.draft, target, node, scale, shift)
    else:
        return False
    if merged is None:
        return False
    walk.replace(walk.index(x), merged)
    return True


def _affine(draft: Draft, node: Node, shapes: Shapes) -> tuple[str, np.ndarray, np.ndarray] | None:
    """``(x, scale, shift)`` if the node computes ``x * scale + shift`` along the last axis, in double precision."""
    if "activation" in node.attrs:
        return None
    if node.op == "BatchNormalization":
        vectors = [draft.constant(name) for name in node.inputs[1:3]]
        if vectors[0] is None or vectors[1] is None:
            return None
        return node.inputs[0], vectors[0].astype(np.float64), vectors[1].astype(np.float64)
    if node.op not in _ARITHMETIC:
        return None
    sides = [draft.constant(name) for name in node.inputs]
    if (sides[0] is None) == (sides[1] is None):
        return None
    left = sides[0] is not None
    x, c = (node.inputs[1], sides[0]) if left else (node.inputs[0], sides[1])
    assert c is not None
    if shapes.dtype(x) != "float32" or c.dtype != np.float32 or shapes.rank(x) < 1:
        return None
    channels = shapes.fixed(x)[-1]
    if channels is None or c.size not in (1, channels) or c.ndim > shapes.rank(x) or (c.ndim and c.shape[-1] != c.size):
        return None
    vector = np.broadcast_to(c.reshape(-1), (channels,)).astype(np.float64)
    one, zero = np.ones(channels), np.zeros(channels)
    if node.op == "Mul":
        return x, vector, zero
    if node.op == "Div":
        return None if left else (x, one / vector, zero)
    if node.op == "Add":
        return x, one, vector
    return (x, -one, vector) if left else (x, one, -vector)


def _into_product(draft: Draft, target: Node, node: Node, scale: np.ndarray, shift: np.ndarray) -> Node | None:
    w = draft.constant(target.inputs[1])
    old = target.inputs[2] if len(target.inputs) > 2 else ""
    bias = draft.constant(old) if old else None
    if w is None or (old and bias is None):
        return None
    weights = target.inputs[1]
    if np.any(scale != 1):
        scaled = (w * scale.reshape(-1, *[1] * (w.ndim - 1))).astype(np.float32)
        weights = draft.add_weight(f"{weights}.folded", scaled)
    total = shift if bias is None else bias.astype(np.float64) * scale + shift
    name = old
    if bias is not None or np.any(total):
        name = draft.add_weight(f"{target.name}.bias", total.astype(np.float32))
    inputs = (target.inputs[0], weights, name) if name else (target.inputs[0], weights)
    return Node(target.op, target.name, inputs, node.outputs, target.attrs)


def _into_batch_norm(draft: Draft, target: Node, node: Node, scale: np.ndarray, shift: np.ndarray) -> Node | None:
    old = [draft.constant(name) for name in target.inputs[1:3]]
    if old[0] is None or old[1] is None:
        return None
    first = draft.add_weight(f"{target.name}.scale", (old[0] * scale).astype(np.float32))
    second = draft.add_weight(f"{target.name}.shift", (old[1] * scale + shift).astype(np.float32))
    return Node(target.op, target.name, (target.inputs[0], first, second), node.outputs, target.attrs)
