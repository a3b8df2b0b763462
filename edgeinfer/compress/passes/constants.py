"""A node whose inputs are all constants is computed now, by the operator's own NumPy form."""

from __future__ import annotations

import numpy as np

from ...graph import Node
from ...ops import OPERATORS
from ..draft import Draft

# An operator that makes much from nothing stays a node from this many elements on: the file would grow.
_GROWING = ("ConstantOfShape", "Expand", "Tile", "Range")
_MAX_GROWN = 1 << 16


def run(draft: Draft) -> None:
    """Fold constants."""
    kept: list[Node] = []
    for node in draft.nodes:
        if all(name in draft.weights for name in node.inputs if name) and any(node.outputs):
            results = OPERATORS[node.op]().run(node, [draft.weights[name] if name else None for name in node.inputs])
            if node.op not in _GROWING or all(r.size <= _MAX_GROWN for r in results):
                draft.weights.update((name, np.asarray(r, order="C")) for name, r in zip(node.outputs, results, strict=False) if name)
                continue
        kept.append(node)
    draft.nodes = kept
