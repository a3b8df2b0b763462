"""Where the batch size may change in a lowered graph, and what the pieces between those places take. Pure.

The batch may change behind an action if everything that is alive there lies image by image: the bytes of image n directly behind those of
image n - 1, so that a run on some images can write its part of a larger buffer. That is derived node by node from the operators below;
an operator that is not among them is taken to mix images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np

from ..graph import Graph, Node
from ..ops.checks import extents
from .batching import Block
from .lowering import Action, Lowered

#: outputs have the inputs' bytes in their order
_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})
#: row n of axis 0 depends on row n of axis 0 of the inputs alone
_ROWWISE = frozenset(
    "Conv MaxPool AveragePool GlobalMaxPool GlobalAveragePool LRN BatchNormalization Gemm MatMul Resize Add Sub Mul Div Pow Min Max "
    "Relu LeakyRelu PRelu Clip Sigmoid Tanh HardSigmoid HardSwish Gelu Erf Exp Log Sqrt Neg Abs Reciprocal Floor Ceil Round Softplus Elu "
    "Swish Sin Cos Where Equal Greater Less Cast Not And Or InstanceNormalization".split()
)
#: the same, unless they work along axis 0
_ALONG_AN_AXIS = frozenset({"Softmax", "LogSoftmax", "LayerNormalization", "Concat", "Split"})


def _keeps_images(node: Node, inputs: Sequence[tuple[int, ...]]) -> bool:
    """Whether output rows of axis 0 depend on the same rows of the inputs alone. ``inputs``: shapes of those that vary with the batch."""
    if node.op in _ROWWISE:
        return node.op != "MatMul" or all(len(shape) > 2 for shape in inputs) or len(inputs) == 1
    if node.op in _ALONG_AN_AXIS:
        axis = node.attrs.get("axis", -1 if node.op in ("Softmax", "LogSoftmax", "LayerNormalization") else 0)
        return int(axis) % max(len(inputs[0]), 1) != 0
    if node.op == "Transpose":
        return list(node.attrs.get("perm", [1]))[:1] == [0]
    if node.op.startswith("Reduce") and "axes" in node.attrs:
        return 0 not in [int(axis) % len(inputs[0]) for axis in node.attrs["axes"]]
    return False


def image_by_image(graph: Graph, one: Lowered, two: Lowered) -> set[str]:
    """Tensors whose bytes lie image by image. ``one``, ``two``: the graph lowered for one and for two images."""
    if graph.batch is None:
        return set()

    def scales(name: str) -> bool:
        """Axis 0 has twice the extent for two images, every other the same."""
        a, b = extents(one.specs[name]), extents(two.specs[name])
        return bool(a) and len(a) == len(b) and b[0] == 2 * a[0] and a[1:] == b[1:]

    fixed = set(one.known) | {name for name in one.specs if name in two.specs and name not in one.inputs}
    for node in graph.nodes:
        fixed -= set(node.outputs) - set(one.known)
    major = {spec.name for spec in graph.inputs if spec.shape and spec.shape[0] == graph.batch}
    for node in graph.nodes:
        varying = [n for n in node.inputs if n and n not in fixed]
        outputs = [n for n in node.outputs if n and n in one.specs and n in two.specs]
        if not varying or not all(n in major for n in varying):
            continue
        if node.op in _VIEWS:
            major.update(outputs[:1])
        elif node.op == "Gather" and node.inputs[0] in fixed and int(node.attrs.get("axis", 0)) == 0:
            major.update(outputs)
        elif all(map(scales, varying)) and _keeps_images(node, [extents(one.specs[n]) for n in varying]):
            major.update(n for n in outputs if scales(n))
    return major


def alike(a: Lowered, b: Lowered) -> bool:
    """Whether two batch sizes gave the same actions on the same buffers."""
    return [x.node.name for x in a.actions] == [x.node.name for x in b.actions] and a.lives == b.lives


def cuts(graph: Graph, one: Lowered, two: Lowered) -> dict[int, int]:
    """Places where the batch may change: number of actions before it -> bytes per image that are alive there.

    Of neighbouring places only those where least is alive are named.
    """
    if graph.batch is None or not alike(one, two):
        return {}
    major = image_by_image(graph, one, two)
    found: list[tuple[int, int]] = []
    for index in range(len(one.actions) - 1):
        alive = [root for root, (first, last) in one.lives.items() if first <= index < last]
        if alive and all(root in major and two.roots[root] == 2 * one.roots[root] for root in alive):
            found.append((index + 1, sum(one.roots[root] for root in alive)))
    kept = {}
    for number, (index, size) in enumerate(found):
        before = found[number - 1][1] if number else size
        behind = found[number + 1][1] if number + 1 < len(found) else size
        if size <= before and size <= behind:
            kept[index] = size
    return kept


def alive_bytes(lowered: Lowered) -> list[int]:
    """Bytes of buffers alive during each action."""
    change = [0] * (len(lowered.actions) + 2)
    for root, (first, last) in lowered.lives.items():
        size = -(-lowered.roots[root] // 64) * 64
        change[first] += size
        change[last + 1] -= size
    return np.cumsum(change).tolist()[: len(lowered.actions) + 1]


def numpy_seconds(action: Action, lowered: Lowered) -> float:
    """Expected seconds of a node in NumPy form: a call and some passes over its tensors."""
    names = [n for n in (*action.node.inputs, *action.node.outputs) if n and n in lowered.specs]
    return 30e-6 + sum(prod(extents(lowered.specs[n])) for n in names) * 2e-9


def blocks(
    places: Mapping[int, int],
    lowered: Mapping[int, Lowered],
    seconds: Callable[[Action, Lowered], float],
) -> list[Block]:
    """The pieces between ``places`` (of :func:`cuts`), priced for every batch size of ``lowered``.

    ``seconds``: expected seconds of one action as it was lowered.
    """
    count = len(next(iter(lowered.values())).actions)
    times = {batch: [seconds(action, low) for action in low.actions] for batch, low in lowered.items()}
    alive = {batch: alive_bytes(low) for batch, low in lowered.items()}
    edges = [0, *sorted(places), count]
    return [
        Block(
            first,
            end,
            places.get(end, 0) if end < count else 0,
            {batch: sum(times[batch][first:end]) for batch in lowered},
            {batch: max(alive[batch][first : end + (end == count)], default=0) for batch in lowered},
        )
        for first, end in zip(edges, edges[1:], strict=False)
    ]
