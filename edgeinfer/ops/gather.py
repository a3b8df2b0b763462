"""Operators that read or write elements by index. Indices may be negative: they count from the end."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ..errors import InputError
from ..graph import Node, TensorSpec
from .base import OPERATORS, Alias, Lowering, Op, Step
from .checks import FLOAT, NativeOp, axis_of, extents, ints, known, need, outputs, unsupported, wrong
from .move import moved

Values = Sequence[np.ndarray | None]


def check_indices(node: Node, indices: np.ndarray, length: int) -> np.ndarray:
    """Indices counted from the front; an error where one is outside."""
    if indices.size and (indices.min() < -length or indices.max() >= length):
        found = f"{indices.min()} to {indices.max()}"
        raise InputError(f"{node.op} node {node.name!r}: expected indices in [{-length}, {length}), found {found}")
    return np.where(indices < 0, indices + length, indices)


@OPERATORS.register("Gather")
class Gather(NativeOp):
    """Slices of data along ``axis`` (0) by index. Native with int64 indices; a coded table (axis 0) needs int64 indices."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Values) -> list[TensorSpec]:
        x, index = need(node, specs, 0, "data"), need(node, specs, 1, "indices")
        shape = extents(x)
        axis = axis_of(node, int(node.attrs.get("axis", 0)), len(shape))
        if index.dtype not in ("int64", "int32"):
            raise wrong(node, "indices of int64 or int32", index.dtype)
        return outputs(node, (x.dtype, (*shape[:axis], *extents(index), *shape[axis + 1 :])))

    def run(self, node: Node, inputs: Values) -> list[np.ndarray]:
        x, index = need(node, inputs, 0, "data"), need(node, inputs, 1, "indices")
        axis = axis_of(node, int(node.attrs.get("axis", 0)), x.ndim)
        return [np.take(x, check_indices(node, index, x.shape[axis]), axis=axis)]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        x, index = plan.spec(node.inputs[0]), plan.spec(node.inputs[1])
        shape = extents(x)
        axis = axis_of(node, int(node.attrs.get("axis", 0)), len(shape))
        count, y = prod(extents(index)), node.outputs[0]
        if plan.is_coded(x.name):
            if axis or x.dtype != FLOAT or index.dtype != "int64":
                return None
            return [Step("gather_rows", {"index": index.name, "y": y}, {"count": count}, weights=x.name)]
        outer, length, inner = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
        value = plan.value(index.name)
        if value is not None:
            flat = check_indices(node, np.ravel(value), length).tolist()
            pace = flat[1] - flat[0] if count > 1 else 1
            if flat == [flat[0] + i * pace for i in range(count)]:
                return moved(node, plan, (outer, count, inner), (length * inner, pace * inner, 1), flat[0] * inner)
        if index.dtype != "int64":
            return None
        size = np.dtype(x.dtype).itemsize
        fields = {"size": size, "outer": outer, "length": length, "inner": inner, "count": count}
        return [Step("gather", {"x": x.name, "index": index.name, "y": y}, fields)] if size in (1, 2, 4, 8) else None


@OPERATORS.register("GatherElements")
class GatherElements(Op):
    """Y like indices: data where the index along ``axis`` (0) is replaced by the one given."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Values) -> list[TensorSpec]:
        x, index = need(node, specs, 0, "data"), need(node, specs, 1, "indices")
        if len(x.shape) != len(index.shape):
            raise wrong(node, f"indices of rank {len(x.shape)}", index.shape)
        axis_of(node, int(node.attrs.get("axis", 0)), len(x.shape))
        return outputs(node, (x.dtype, extents(index)))

    def run(self, node: Node, inputs: Values) -> list[np.ndarray]:
        x, index = need(node, inputs, 0, "data"), need(node, inputs, 1, "indices")
        axis = axis_of(node, int(node.attrs.get("axis", 0)), x.ndim)
        x = x[tuple(slice(None) if i == axis else slice(n) for i, n in enumerate(index.shape))]
        return [np.take_along_axis(x, check_indices(node, index, x.shape[axis]), axis=axis)]


@OPERATORS.register("GatherND")
class GatherND(Op):
    """The last axis of indices holds coordinates into data, after ``batch_dims`` (0) axes that both share."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Values) -> list[TensorSpec]:
        x, index = need(node, specs, 0, "data"), need(node, specs, 1, "indices")
        shape, at = extents(x), extents(index)
        shared = int(node.attrs.get("batch_dims", 0))
        if not at or shape[:shared] != at[:shared] or not shared < len(at) or at[-1] > len(shape) - shared:
            raise wrong(node, f"indices [..., n] with {shared} leading axes as in {shape}", at)
        return outputs(node, (x.dtype, (*at[:-1], *shape[shared + at[-1] :])))

    def run(self, node: Node, inputs: Values) -> list[np.ndarray]:
        x, index = need(node, inputs, 0, "data"), need(node, inputs, 1, "indices")
        shared, depth = int(node.attrs.get("batch_dims", 0)), index.shape[-1]
        lead = np.indices(index.shape[:shared]).reshape((shared, *index.shape[:shared], *[1] * (index.ndim - 1 - shared)))
        at = [check_indices(node, index[..., i], x.shape[shared + i]) for i in range(depth)]
        return [x[(*lead, *at)] if shared + depth else np.broadcast_to(x, (*index.shape[:-1], *x.shape)).copy()]


def reduction_of(node: Node) -> Any:
    """How a scattered value meets the old one: a NumPy ufunc, or None where it replaces it."""
    name = node.attrs.get("reduction", "none")
    known_ones = {"none": None, "add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}
    if name not in known_ones:
        raise unsupported(node, f"reduction {name!r}")
    return known_ones[name]


def scatter(y: np.ndarray, at: tuple[Any, ...], updates: np.ndarray, reduction: Any) -> None:
    """Write updates to y in place; with a reduction, repeated places count every time."""
    if reduction is None:
        y[at] = updates
    else:
        reduction.at(y, at, updates)


@OPERATORS.register("ScatterElements")
class ScatterElements(Op):
    """A copy of data with ``updates`` written where the index along ``axis`` (0) is replaced by the one given."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Values) -> list[TensorSpec]:
        x, index, updates = need(node, specs, 0, "data"), need(node, specs, 1, "indices"), need(node, specs, 2, "updates")
        if extents(index) != extents(updates) or len(index.shape) != len(x.shape):
            raise wrong(node, f"indices and updates of one shape and rank {len(x.shape)}", f"{index.shape} and {updates.shape}")
        axis_of(node, int(node.attrs.get("axis", 0)), len(x.shape))
        reduction_of(node)
        return outputs(node, (x.dtype, extents(x)))

    def run(self, node: Node, inputs: Values) -> list[np.ndarray]:
        x, index, updates = need(node, inputs, 0, "data"), need(node, inputs, 1, "indices"), need(node, inputs, 2, "updates")
        axis = axis_of(node, int(node.attrs.get("axis", 0)), x.ndim)
        at: list[np.ndarray] = list(np.indices(index.shape, sparse=True))
        at[axis] = check_indices(node, index, x.shape[axis])
        y = x.copy()
        scatter(y, tuple(at), updates, reduction_of(node))
        return [y]


@OPERATORS.register("ScatterND")
class ScatterND(Op):
    """A copy of data with ``updates`` written at the coordinates in the last axis of indices."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Values) -> list[TensorSpec]:
        x, index, updates = need(node, specs, 0, "data"), need(node, specs, 1, "indices"), need(node, specs, 2, "updates")
        shape, at = extents(x), extents(index)
        if not at or at[-1] > len(shape) or extents(updates) != (*at[:-1], *shape[at[-1] :]):
            raise wrong(node, "indices [..., n] and updates [..., rest of data]", f"{shape}, {at}, {updates.shape}")
        reduction_of(node)
        return outputs(node, (x.dtype, shape))

    def run(self, node: Node, inputs: Values) -> list[np.ndarray]:
        x, index, updates = need(node, inputs, 0, "data"), need(node, inputs, 1, "indices"), need(node, inputs, 2, "updates")
        y = x.copy()
        scatter(y, tuple(check_indices(node, index[..., i], x.shape[i]) for i in range(index.shape[-1])), updates, reduction_of(node))
        return [y]


@OPERATORS.register("OneHot")
class OneHot(Op):
    """A new ``axis`` (-1) of extent ``depth`` (input 1 or attribute): values[1] at the index, values[0] elsewhere.

    An index outside is nowhere.
    """

    shape_inputs = (1,)

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Values) -> list[TensorSpec]:
        index, choice = need(node, specs, 0, "indices"), need(node, specs, 2, "values")
        shape = extents(index)
        axis = axis_of(node, int(node.attrs.get("axis", -1)), len(shape) + 1)
        depth = ints(known(node, self.setting(node, "depth", values, 1), "a depth"))[0]
        if extents(choice) != (2,):
            raise wrong(node, "two values", choice.shape)
        return outputs(node, (choice.dtype, (*shape[:axis], depth, *shape[axis:])))

    def run(self, node: Node, inputs: Values) -> list[np.ndarray]:
        index, choice = need(node, inputs, 0, "indices"), need(node, inputs, 2, "values")
        depth = ints(self.setting(node, "depth", inputs, 1))[0]
        axis = axis_of(node, int(node.attrs.get("axis", -1)), index.ndim + 1)
        place = np.where(index < 0, index + depth, index)
        places = np.arange(depth).reshape(-1, *[1] * (index.ndim - axis))
        return [np.where(np.expand_dims(place, axis) == places, choice[1], choice[0])]
