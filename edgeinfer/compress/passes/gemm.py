"""A product with a constant matrix becomes Gemm: X [..., K] with W [M, K], whatever side and order the file had it in.

The bias that follows it is taken in by the affine pass.
"""

from __future__ import annotations

import numpy as np

from ...graph import Node
from ..draft import Draft


def run(draft: Draft) -> None:
    """MatMul by a constant -> Gemm."""
    turned: dict[str, str] = {}  # constant [K, M] -> its name as [M, K]
    for i, node in enumerate(draft.nodes):
        if node.op != "MatMul":
            continue
        x, w = node.inputs
        matrix = draft.constant(w)
        if matrix is None or matrix.ndim != 2 or draft.constant(x) is not None:
            continue
        alpha = node.attrs.get("alpha", 1.0)
        if w not in turned or alpha != 1.0:
            rows = np.ascontiguousarray(matrix.T)
            name = draft.add_weight(f"{w}.rows", rows if alpha == 1.0 else (rows * np.float32(alpha)).astype(rows.dtype))
            if alpha == 1.0:
                turned[w] = name
        else:
            name = turned[w]
        draft.nodes[i] = Node("Gemm", node.name, (x, name), node.outputs)
