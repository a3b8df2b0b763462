"""Which constants of a graph are weights to be coded, and as what matrix.

Coded are the matrices that kernels decode tile by tile: W of Conv and Gemm, W and R of GRU and LSTM, tables of Gather. A constant that is
also read in another way (or as another matrix) is stored once for each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..graph import Graph, Node
from .draft import Weights


@dataclass(frozen=True)
class Matrix:
    """A constant as a coded matrix: ``rows`` output rows in ``groups`` groups; depthwise filters are one group (their kernel's order)."""

    name: str
    op: str
    rows: int
    groups: int
    depthwise: bool = False


def matrices(graph: Graph, weights: Weights) -> tuple[Graph, Weights, dict[str, Matrix]]:
    """The graph and weights, constants with two roles doubled, and the matrix of every constant that is to be coded.

    Weights come in the order of their first use.
    """
    roles: dict[str, Matrix | None] = {}
    kept: Weights = {}
    copies: dict[tuple[str, Matrix | None], str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = list(node.inputs)
        for position, name in enumerate(inputs):
            if name not in weights:
                continue
            role = _role(node, position, name, weights[name])
            if name in roles and not _same(roles[name], role):
                key = (name, None if role is None else replace(role, name="", op=""))
                if key not in copies:
                    copies[key] = _fresh(f"{name}.{node.op.lower()}", roles, weights)
                name = copies[key]
                role = None if role is None else replace(role, name=name)
            roles.setdefault(name, role)
            kept.setdefault(name, weights[inputs[position]])
            inputs[position] = name
        nodes.append(node if tuple(inputs) == node.inputs else replace(node, inputs=tuple(inputs)))
    return replace(graph, nodes=tuple(nodes)), kept, {name: role for name, role in roles.items() if role is not None}


def _same(a: Matrix | None, b: Matrix | None) -> bool:
    if a is None or b is None:
        return a is b
    return (a.rows, a.groups) == (b.rows, b.groups)


def _fresh(stem: str, roles: dict[str, Matrix | None], weights: Weights) -> str:
    name, i = stem, 1
    while name in roles or name in weights:
        name, i = f"{stem}.{i}", i + 1
    return name


def _role(node: Node, position: int, name: str, array: np.ndarray) -> Matrix | None:
    if array.dtype != np.float32 or array.size == 0:
        return None
    if node.op == "Conv" and position == 1:
        group = int(node.attrs.get("group", 1))
        depthwise = 1 < group == array.shape[0] and array.shape[-1] == 1
        return Matrix(name, node.op, array.shape[0], 1 if depthwise else group, depthwise)
    if (node.op == "Gemm" and position == 1) or (node.op in ("GRU", "LSTM") and position in (1, 2)):
        return Matrix(name, node.op, array.shape[0], 1)
    if node.op == "Gather" and position == 0 and array.ndim == 2 and node.attrs.get("axis", 0) == 0:
        return Matrix(name, node.op, array.shape[0], 1)
    return None
