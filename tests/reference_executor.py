"""The slow twin of the runtime: runs a network node by node through the operators' NumPy forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgeinfer.graph import Graph
from edgeinfer.ops import OPERATORS


def execute(
    graph: Graph, weights: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray], wanted: Sequence[str] | None = None
) -> list[np.ndarray]:
    """Values of the outputs (or of the tensors named in ``wanted``) for the given inputs."""
    wanted = [t.name for t in graph.outputs] if wanted is None else list(wanted)
    values: dict[str, np.ndarray] = dict(inputs)
    last = {name: i for i, node in enumerate(graph.nodes) for name in node.inputs}
    for i, node in enumerate(graph.nodes):
        arguments = [None if not name else weights[name] if name in weights else values[name] for name in node.inputs]
        results = OPERATORS[node.op]().run(node, arguments)
        values.update((name, value) for name, value in zip(node.outputs, results, strict=False) if name)
        for name in node.inputs:
            if last[name] == i and name not in wanted:
                values.pop(name, None)
    return [values[name] for name in wanted]
