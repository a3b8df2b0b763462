"""The sum of a product and something of the same shape becomes the product's fourth input, added before it is stored.

Of two products the later one takes the other in. A product stays where it is if the other term exists there already, else it moves down
to the sum.
"""

from __future__ import annotations

from ...graph import Node
from ..draft import Draft, Shapes
from .sweep import Sweep, sweep


def run(draft: Draft) -> None:
    """Fuse sums into Conv and Gemm."""
    shapes = draft.shapes()
    sweep(draft, lambda walk, node: _fuse(walk, node, shapes))


def _fuse(walk: Sweep, node: Node, shapes: Shapes) -> bool:
    if node.op != "Add" or node.attrs or node.inputs[0] == node.inputs[1]:
        return False
    a, b = node.inputs
    if shapes.rank(a) != shapes.rank(b) or shapes.dims(a) != shapes.dims(b) or shapes.dtype(a) != "float32":
        return False
    for x, other in sorted(((a, b), (b, a)), key=lambda pair: -walk.index(pair[0])):
        product = walk.producer(x)
        if product is None or product.op not in ("Conv", "Gemm") or not walk.sole(x):
            continue
        if "activation" in product.attrs or len(product.inputs) > 3 or other in walk.draft.weights:
            continue
        inputs = (*product.inputs, *[""] * (3 - len(product.inputs)), other)
        fused = Node(product.op, product.name, inputs, node.outputs, product.attrs)
        at = walk.index(x)
        if walk.index(other) < at:
            walk.replace(at, fused)
        else:
            walk.move_last(at, fused)
        return True
    return False
