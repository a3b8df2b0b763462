"""A factor before or after a product of two activations becomes the product's ``alpha``."""

from __future__ import annotations

from ...graph import Node
from ..draft import Draft
from .sweep import Sweep, sweep


def run(draft: Draft) -> None:
    """Fold factors into MatMul."""
    sweep(draft, _fold)


def _fold(walk: Sweep, node: Node) -> bool:
    if node.op == "MatMul":
        return _from_inputs(walk, node)
    found = _factor(walk.draft, node)
    if found is None:
        return False
    x, factor = found
    product = walk.producer(x)
    if product is None or product.op != "MatMul" or not walk.sole(x):
        return False
    attrs = {**product.attrs, "alpha": product.attrs.get("alpha", 1.0) * factor}
    walk.replace(walk.index(x), Node("MatMul", product.name, product.inputs, node.outputs, attrs))
    return True


def _from_inputs(walk: Sweep, node: Node) -> bool:
    inputs, alpha = list(node.inputs), node.attrs.get("alpha", 1.0)
    for i, name in enumerate(inputs):
        before = walk.producer(name)
        found = _factor(walk.draft, before) if before is not None and walk.sole(name) else None
        if found is not None and len(set(inputs)) == 2:
            inputs[i], alpha = found[0], alpha * found[1]
    if tuple(inputs) == node.inputs:
        return False
    walk.append(Node("MatMul", node.name, tuple(inputs), node.outputs, {**node.attrs, "alpha": alpha}))
    return True


def _factor(draft: Draft, node: Node) -> tuple[str, float] | None:
    """``(x, factor)`` if the node multiplies or divides ``x`` by a constant number."""
    if node.op not in ("Mul", "Div") or node.attrs:
        return None
    for x, c in (node.inputs, node.inputs[::-1]):
        array = draft.constant(c)
        if array is not None and array.size == 1 and array.ndim <= 1 and array.dtype == "float32" and x not in draft.weights:
            if node.op == "Mul":
                return x, float(array.reshape(()))
            if c == node.inputs[1] and array.reshape(()) != 0:
                return x, 1.0 / float(array.reshape(()))
    return None
