"""``x * 0.5 * (1 + erf(x / sqrt 2))`` and its approximation with tanh, in any order of factors -> Gelu."""

from __future__ import annotations

from math import isclose, pi, sqrt

from ...graph import Node
from ..draft import Draft
from .sweep import Sweep, sweep


def run(draft: Draft) -> None:
    """Find Gelu."""
    sweep(draft, _match)


def _match(walk: Sweep, node: Node) -> bool:
    factors = _factors(walk, node)
    if factors is None:
        return False
    number, terms = factors
    if not isclose(number, 0.5, rel_tol=1e-4) or len(terms) != 2:
        return False
    for x, gate in (terms, terms[::-1]):
        approximate = _gate(walk, gate, x)
        if approximate is not None:
            walk.append(Node("Gelu", node.name, (x,), node.outputs, {"approximate": approximate}))
            return True
    return False


def _factors(walk: Sweep, node: Node, name: str | None = None) -> tuple[float, list[str]] | None:
    """``(number, tensors)`` whose product a tree of Mul (and Div by a number) computes; only through tensors read once."""
    if node.op not in ("Mul", "Div") or node.attrs:
        return None
    number, terms = 1.0, []
    for i, part in enumerate(node.inputs):
        scalar = walk.draft.scalar(part)
        if scalar is not None:
            if node.op == "Div" and (i == 0 or scalar == 0):
                return None
            number *= 1 / scalar if node.op == "Div" else scalar
            continue
        if node.op == "Div" and i == 1:
            return None
        inner = walk.producer(part)
        deeper = _factors(walk, inner) if inner is not None and walk.sole(part) else None
        if deeper is None:
            terms.append(part)
        else:
            number *= deeper[0]
            terms += deeper[1]
    return number, terms


def _sum_with(walk: Sweep, name: str, constant: float) -> str | None:
    """``x`` if the tensor is ``x + constant``."""
    node = walk.producer(name)
    if node is None or node.op != "Add" or node.attrs:
        return None
    for x, c in (node.inputs, node.inputs[::-1]):
        scalar = walk.draft.scalar(c)
        if scalar is not None and isclose(scalar, constant, rel_tol=1e-5):
            return x
    return None


def _gate(walk: Sweep, name: str, x: str) -> str | None:
    """``none`` or ``tanh`` if the tensor is ``1 + erf(x / sqrt 2)`` or ``1 + tanh(...)`` of ``x``."""
    inner = _sum_with(walk, name, 1.0)
    node = walk.producer(inner) if inner else None
    if node is None or node.op not in ("Erf", "Tanh"):
        return None
    before = walk.producer(node.inputs[0])
    factors = _factors(walk, before) if before is not None else None
    if factors is None:
        return None
    number, terms = factors
    if node.op == "Erf":
        return "none" if terms == [x] and isclose(number, 1 / sqrt(2), rel_tol=1e-4) else None
    if len(terms) == 1 and isclose(number, sqrt(2 / pi), rel_tol=1e-4) and _cubic(walk, terms[0], x):
        return "tanh"
    return None


def _cubic(walk: Sweep, name: str, x: str) -> bool:
    """True if the tensor is ``x + 0.044715 x^3``."""
    node = walk.producer(name)
    if node is None or node.op != "Add" or x not in node.inputs:
        return False
    other = node.inputs[1] if node.inputs[0] == x else node.inputs[0]
    before = walk.producer(other)
    factors = _factors(walk, before) if before is not None else None
    if factors is None or not isclose(factors[0], 0.044715, rel_tol=1e-4):
        return False
    if factors[1] == [x, x, x]:
        return True
    power = walk.producer(factors[1][0]) if len(factors[1]) == 1 else None
    return power is not None and power.op == "Pow" and power.inputs[0] == x and walk.draft.scalar(power.inputs[1]) == 3.0
