"""A fixed batch of 1 is made free where the rows of a batch cannot influence each other.

The batch is followed through the network as an axis of every tensor: node by node, with the operator's own shape rules for a few batch
sizes, and with a rule per kind of operator that says whether it mixes what lies along that axis. A Reshape to ``[1, k]`` is rewritten.
Where a node stands in the way the batch is kept and a note says which. A network that has a symbol already is followed in the same way:
the symbol is called its batch only if rows are independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

from ...errors import EdgeInferError
from ...graph import Node, TensorSpec
from ..draft import Draft, Shapes, fixed_size
from .elementwise import BROADCAST, UNARY

_SYMBOL = "N"


@dataclass(frozen=True)
class Rows:
    """Where the batch lies in a tensor: along ``axis``, ``inner`` consecutive entries of it per row."""

    axis: int
    inner: int = 1


class Kept(Exception):
    """The batch cannot be free; the text says why."""


def run(draft: Draft) -> None:
    """Free the batch, or say why not."""
    if not draft.inputs or any(not t.shape for t in draft.inputs):
        draft.batch = None
        return
    first = {t.shape[0] for t in draft.inputs}
    if len(first) == 1 and isinstance(next(iter(first)), str):
        symbol = str(next(iter(first)))
        try:
            _follow(draft, draft.inputs, draft.nodes, symbol)
            draft.batch = symbol
        except Kept as why:
            draft.notes.append(f"axis {symbol!r} is not run in slices: {why}")
    elif first == {1}:
        symbol = _SYMBOL
        while any(symbol in t.shape for t in draft.inputs):
            symbol += "_"
        inputs = [TensorSpec(t.name, t.dtype, (symbol, *t.shape[1:])) for t in draft.inputs]
        try:
            nodes = _follow(draft, inputs, draft.nodes, symbol)
        except Kept as why:
            draft.notes.append(f"the batch stays 1: {why}")
            return
        draft.inputs, draft.nodes, draft.batch = inputs, nodes, symbol
    else:
        shown = ", ".join(f"{t.name} {list(t.shape)}" for t in draft.inputs)
        draft.notes.append(f"the batch stays as it is: the inputs have no first axis in common, or it is neither 1 nor a symbol ({shown})")


def _follow(draft: Draft, inputs: Sequence[TensorSpec], nodes: Sequence[Node], symbol: str) -> list[Node]:
    """The nodes, Reshapes rewritten, if every row of the outputs depends on the same row of the inputs only. Raises Kept."""
    shapes = Shapes(inputs, draft.weights, draft.scheme)
    walk = _Walk(shapes, symbol, {t.name: Rows(0) for t in inputs})
    found = [walk.add(node) for node in nodes]
    for public, tensor in draft.outputs.items():
        if walk.rows.get(tensor) != Rows(0):
            raise Kept(f"output {public!r} does not have the batch as its first axis")
    return found


class _Walk:
    def __init__(self, shapes: Shapes, symbol: str, rows: dict[str, Rows]) -> None:
        self.shapes = shapes
        self.sizes = shapes.sizes[symbol]
        self.rows = rows

    def add(self, node: Node) -> Node:
        """Follow one node; returns it, or its rewritten form."""
        inputs = [self.rows.get(name) for name in node.inputs]
        if all(r is None for r in inputs):
            self.shapes.add(node)
            return node
        if node.op == "Reshape" and "shape" in node.attrs:
            node = self._rewritten(node)
        try:
            self.shapes.add(node)
        except EdgeInferError:
            raise Kept(f"{node.op} node {node.name!r} has the batch built in") from None
        if node.op in ("Shape", "Size"):  # says how large, not what is in it
            return node
        rule = _RULES.get(node.op)
        if rule is None and node.op.startswith("Reduce"):
            rule = _reduce
        if rule is None:
            raise Kept(f"{node.op} node {node.name!r} may mix rows")
        result = rule(self, node, inputs)
        if result is None:
            raise Kept(f"{node.op} node {node.name!r} mixes rows of a batch")
        for i, name in enumerate(node.outputs):
            if name:
                rows = result[i] if isinstance(result, list) else result
                dims = self.shapes.dims(name)
                if rows.axis >= len(dims) or dims[rows.axis] != tuple(s * rows.inner for s in self.sizes):
                    raise Kept(f"{node.op} node {node.name!r} has the batch built in")
                self.rows[name] = rows
        return node

    def stride(self, name: str, rows: Rows) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What lies before the batch axis and how many elements one row has behind it, per probe."""
        dims = self.shapes.dims(name)
        before = tuple(prod(d[p] for d in dims[: rows.axis]) for p in range(self.shapes.probes))
        behind = tuple(rows.inner * prod(d[p] for d in dims[rows.axis + 1 :]) for p in range(self.shapes.probes))
        return before, behind

    def same_stride(self, x: str, rows: Rows, y: str) -> Rows | None:
        """The batch axis of ``y``, which has the elements of ``x`` in the same order."""
        dims = self.shapes.dims(y)
        for axis, size in enumerate(dims):
            inner, rest = divmod(size[0], self.sizes[0])
            if rest == 0 and inner and size == tuple(s * inner for s in self.sizes):
                candidate = Rows(axis, inner)
                if self.stride(y, candidate) == self.stride(x, rows):
                    return candidate
        return None

    def _rewritten(self, node: Node) -> Node:
        """A Reshape whose constant shape holds a batch of 1, with that 1 free."""
        shape, dims = list(node.attrs["shape"]), self.shapes.dims(node.inputs[0])
        if self.rows[node.inputs[0]] != Rows(0) or shape[:1] != [1] or node.attrs.get("allowzero", 0):
            return node
        total = fixed_size(tuple(prod(d[p] for d in dims[1:]) for p in range(self.shapes.probes)))
        known = 1
        for i, s in enumerate(shape[1:], 1):
            size = fixed_size(dims[i]) if s == 0 and i < len(dims) else s
            if size is None:
                return node
            known *= 1 if size == -1 else size
        if total is None or not known or (total % known if -1 in shape else total != known):
            return node
        return replace(node, attrs={**node.attrs, "shape": [0, *shape[1:]]})


# The batch in all outputs (or one entry per output), from the batch in every input; None: rows are mixed
Rule = Callable[[_Walk, Node, list["Rows | None"]], "Rows | list[Rows] | None"]


def _first(walk: _Walk, node: Node, inputs: list[Rows | None]) -> Rows | None:
    """Elementwise on input 0, the others settings."""
    return inputs[0] if not any(inputs[1:]) else None


def _spatial(walk: _Walk, node: Node, inputs: list[Rows | None]) -> Rows | None:
    """Operators whose first axis is the batch by definition."""
    return inputs[0] if inputs[0] is not None and inputs[0].axis == 0 and all(r in (None, inputs[0]) for r in inputs[1:]) else None


def _broadcast(walk: _Walk, node: Node, inputs: list[Rows | None]) -> Rows | None:
    rank = walk.shapes.rank(node.outputs[0])
    found = set()
    for name, rows in zip(node.inputs, inputs, strict=True):
        if rows is not None:
            found.add(Rows(rows.axis + rank - walk.shapes.rank(name), rows.inner))
    return found.pop() if len(found) == 1 else None


def _transpose(walk: _Walk, node: Node, inputs: list[Rows | None]) -> Rows | None:
    rows = inputs[0]
    assert rows is not None
    rank = walk.shapes.rank(node.inputs[0])
    perm = node.attrs.get("perm", list(range(rank))[::-1])
    return Rows(perm.index(rows.axis), rows.inner)


def _reshape(walk: _Walk, node: Node, inputs: list[Rows | None]) -> Rows | None:
    return walk.same_stride(node.inputs[0], inputs[0], node.outputs[0]) if inputs[0] is not None else None


def _gemm(walk: _Walk, node: Node, inputs: list[Rows | None]) -> Rows | None:
    rows = inputs[0]
    if rows is None or rows.axis == walk.shapes.rank(node.inputs[0]) - 1:
        return None
    return rows if all(r in (None, rows) for r in inputs[1:]) else None


def _matmul(walk: _Walk, node: Node, inputs: list[Rows | None]) -> Rows | None:
    rank = walk.shapes.rank(node.outputs[0])
    found = set()
    for name, rows, contracted in zip(node.inputs, inputs, (-1, -2), strict=True):
        own = walk.shapes.rank(name)
        if rows is not None:
            if own < 2 or rows.axis == own + contracted:
                return None
            found.add(Rows(rows.axis + rank - own, rows.inner))
    return found.pop() if len(found) == 1 else None


def _other_axis(*attributes: str, default: int | None = None) -> Rule:
    """Operators that work along axes which they name; all others pass through."""

    def rule(walk: _Walk, node: Node, inputs: list[Rows | None]) -> Rows | None:
        rank = walk.shapes.rank(node.inputs[0])
        rows = {r for r in inputs if r is not None}
        if len(rows) != 1:
            return None
        (found,) = rows
        for attribute in attributes:
            axes = node.attrs.get(attribute, default)
            if axes is None or found.axis in [a % rank for a in ([axes] if isinstance(axes, int) else axes)]:
                return None
        return found

    return rule


def _concat(walk: _Walk, node: Node, inputs: list[Rows | None]) -> Rows | list[Rows] | None:
    if any(r is None for r in inputs):
        return None
    return _other_axis("axis")(walk, node, inputs)


def _pad(walk: _Walk, node: Node, inputs: list[Rows | None]) -> Rows | None:
    rows, pads = inputs[0], node.attrs.get("pads")
    if rows is None or pads is None or any(inputs[1:]):
        return None
    return rows if not pads[rows.axis] and not pads[rows.axis + len(pads) // 2] else None


def _slice(walk: _Walk, node: Node, inputs: list[Rows | None]) -> Rows | None:
    rows, axes = inputs[0], node.attrs.get("axes")
    if rows is None or axes is None or any(inputs[1:]):
        return None
    rank = walk.shapes.rank(node.inputs[0])
    for i, axis in enumerate(axes):
        if axis % rank == rows.axis:
            settings = [node.attrs.get(k, [d] * len(axes))[i] for k, d in (("starts", None), ("ends", None), ("steps", 1))]
            if settings[0] != 0 or settings[1] is None or settings[1] < 1 << 30 or settings[2] != 1:
                return None
    return rows


def _reduce(walk: _Walk, node: Node, inputs: list[Rows | None]) -> Rows | None:
    rows, rank = inputs[0], walk.shapes.rank(node.inputs[0])
    axes = node.attrs.get("axes")
    if axes is None and node.op in ("ArgMax", "ArgMin"):
        axes = [node.attrs.get("axis", 0)]
    if rows is None or axes is None or any(inputs[1:]):
        return None
    gone = sorted(a % rank for a in axes)
    if rows.axis in gone:
        return None
    return rows if node.attrs.get("keepdims", 1) else Rows(rows.axis - sum(a < rows.axis for a in gone), rows.inner)


def _gather(walk: _Walk, node: Node, inputs: list[Rows | None]) -> Rows | None:
    axis = node.attrs.get("axis", 0) % walk.shapes.rank(node.inputs[0])
    data, index = inputs
    if data is not None and index is not None:
        return None
    if index is not None:
        return Rows(index.axis + axis, index.inner)
    assert data is not None
    if data.axis == axis:
        return None
    return data if data.axis < axis else Rows(data.axis + walk.shapes.rank(node.inputs[1]) - 1, data.inner)


def _layer_norm(walk: _Walk, node: Node, inputs: list[Rows | None]) -> Rows | None:
    rank = walk.shapes.rank(node.inputs[0])
    rows = inputs[0]
    return rows if rows is not None and not any(inputs[1:]) and rows.axis < node.attrs.get("axis", -1) % rank else None


def _resize(walk: _Walk, node: Node, inputs: list[Rows | None]) -> Rows | None:
    return inputs[0] if inputs[0] == Rows(0) and not any(inputs[1:]) else None


def _expand(walk: _Walk, node: Node, inputs: list[Rows | None]) -> Rows | None:
    if inputs[0] is None:
        return None  # a batch that comes from the shape alone: all rows equal, but nothing to follow
    return Rows(inputs[0].axis + walk.shapes.rank(node.outputs[0]) - walk.shapes.rank(node.inputs[0]), inputs[0].inner)


def _recurrent(walk: _Walk, node: Node, inputs: list[Rows | None]) -> list[Rows] | None:
    return [Rows(2), Rows(1), Rows(1)] if all(r in (None, Rows(1)) for r in inputs) else None


_RULES: dict[str, Rule] = {
    **dict.fromkeys(UNARY, _first),
    **dict.fromkeys(BROADCAST, _broadcast),
    **dict.fromkeys(("Conv", "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "LRN", "BatchNormalization"), _spatial),
    **dict.fromkeys(("InstanceNormalization", "GroupNormalization"), _spatial),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _other_axis("axis", default=-1)),
    "Split": _other_axis("axis", default=0),
    "Transpose": _transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Concat": _concat,
    "Pad": _pad,
    "Slice": _slice,
    "ArgMax": _reduce,
    "ArgMin": _reduce,
    "Gather": _gather,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _layer_norm,
    "Resize": _resize,
    "GRU": _recurrent,
    "LSTM": _recurrent,
    "Expand": _expand,
}
