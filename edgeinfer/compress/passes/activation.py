"""An activation becomes an attribute of the node that computes its input, also past nodes that only change the shape."""

from __future__ import annotations

from ...graph import Node
from ..draft import Draft, Shapes
from .sweep import Sweep, sweep

#: activation -> the attributes it brings along
ACTIVATIONS = {
    "Relu": (),
    "LeakyRelu": ("alpha",),
    "Clip": ("min", "max"),
    "Sigmoid": (),
    "Tanh": (),
    "HardSigmoid": ("alpha", "beta"),
    "HardSwish": (),
    "Gelu": ("approximate",),
    "Silu": (),
}
_CARRIERS = ("Conv", "Gemm", "BatchNormalization", "Add", "Sub", "Mul", "Div")
_SHAPE_ONLY = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")


def run(draft: Draft) -> None:
    """Fuse activations."""
    shapes = draft.shapes()
    sweep(draft, lambda walk, node: _fuse(walk, node, shapes))


def _fuse(walk: Sweep, node: Node, shapes: Shapes) -> bool:
    if node.op not in ACTIVATIONS or any(node.inputs[1:]) or shapes.dtype(node.inputs[0]) != "float32":
        return False
    x = node.inputs[0]
    through: list[int] = []
    while True:
        at = walk.index(x)
        carrier = walk.producer(x)
        if carrier is None or not walk.sole(x):
            return False
        if carrier.op not in _SHAPE_ONLY:
            break
        through.append(at)
        x = carrier.inputs[0]
    if carrier.op not in _CARRIERS or "activation" in carrier.attrs:
        return False
    attrs = {**carrier.attrs, "activation": node.op, **{k: node.attrs[k] for k in ACTIVATIONS[node.op] if k in node.attrs}}
    outputs = carrier.outputs if through else node.outputs
    walk.replace(at, Node(carrier.op, carrier.name, carrier.inputs, outputs, attrs))
    if through:
        last = walk.built[through[0]]
        assert last is not None
        walk.replace(through[0], Node(last.op, last.name, last.inputs, node.outputs, last.attrs))
    return True
