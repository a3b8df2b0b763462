"""Shape arithmetic that can be settled now: computed targets of Reshape become attributes, values that never change become constants.

What is left (a position that depends on the length of the input, say) stays as nodes; the planner evaluates them for every plan.
"""

from __future__ import annotations

import numpy as np

from ...graph import Node
from ..draft import Draft, Shapes, reshape_target

# Reshape-like operators that change nothing where input and output have the same shape
_SHAPE_ONLY = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile")


def run(draft: Draft) -> None:
    """Settle what follows from shapes."""
    shapes = Shapes(draft.inputs, draft.weights, draft.scheme)
    same: dict[str, str] = {}
    kept: list[Node] = []
    for node in draft.nodes:
        node = Node(node.op, node.name, tuple(same.get(n, n) for n in node.inputs), node.outputs, dict(node.attrs))
        shapes.add(node)
        fixed = [shapes.fixed_value(name) if name else None for name in node.outputs]
        if all(value is not None for value in fixed):
            for name, value in zip(node.outputs, fixed, strict=True):
                draft.weights[name] = np.asarray(value, order="C")
            continue
        if node.op in _SHAPE_ONLY and _equal(shapes, node.inputs[0], node.outputs[0]):
            same[node.outputs[0]] = node.inputs[0]
            continue
        if node.op == "Reshape" and "shape" not in node.attrs:
            target = reshape_target(shapes.dims(node.inputs[0]), shapes.dims(node.outputs[0]))
            if target is not None:
                node = Node(node.op, node.name, node.inputs[:1], node.outputs, {"shape": target})
        elif node.op == "Expand" and "shape" not in node.attrs and all(d is not None for d in shapes.fixed(node.outputs[0])):
            node = Node(node.op, node.name, node.inputs[:1], node.outputs, {"shape": list(shapes.fixed(node.outputs[0]))})
        kept.append(node)
    draft.nodes = kept
    for public, tensor in draft.outputs.items():
        draft.outputs[public] = same.get(tensor, tensor)


def _equal(shapes: Shapes, a: str, b: str) -> bool:
    return shapes.rank(a) == shapes.rank(b) and shapes.dims(a) == shapes.dims(b)
