"""Reductions over axes, positions of extremes, running sums.

Axes are an attribute ``axes`` or input 1, as in opset 18; none at all means every axis (or, with ``noop_with_empty_axes``, no axis).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ..graph import Node, TensorSpec
from .base import OPERATORS, Alias, Lowering, Op, Step
from .checks import NativeOp, axes_of, axis_of, extents, ints, known, known_values, named, need, outputs, wrong


def _log_sum_exp(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> Any:
    peak = x.max(axis=axis, keepdims=True, initial=-np.inf)
    peak = np.where(np.isfinite(peak), peak, 0)
    total = np.log(np.exp(x - peak).sum(axis=axis, keepdims=True)) + peak
    return total if keepdims else total.reshape([n for i, n in enumerate(x.shape) if i not in axis])


def _limit(dtype: np.dtype, sign: int) -> Any:
    """What a maximum (sign -1) or minimum (sign 1) of nothing is."""
    if dtype.kind == "b":
        return sign > 0
    if dtype.kind == "f":
        return sign * np.inf
    return np.iinfo(dtype).max if sign > 0 else np.iinfo(dtype).min


#: operator -> NumPy form and the code of the ``reduce`` step, None where it has none
REDUCTIONS: dict[str, tuple[Callable[..., Any], int | None]] = {
    "ReduceSum": (np.sum, 0),
    "ReduceMean": (np.mean, 1),
    "ReduceMax": (lambda x, axis, keepdims: np.max(x, axis=axis, keepdims=keepdims, initial=_limit(x.dtype, -1)), 2),
    "ReduceMin": (lambda x, axis, keepdims: np.min(x, axis=axis, keepdims=keepdims, initial=_limit(x.dtype, 1)), 3),
    "ReduceProd": (np.prod, 4),
    "ReduceSumSquare": (lambda x, axis, keepdims: np.sum(x * x, axis=axis, keepdims=keepdims), 5),
    "ReduceL1": (lambda x, axis, keepdims: np.sum(np.abs(x), axis=axis, keepdims=keepdims), 6),
    "ReduceL2": (lambda x, axis, keepdims: np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims)), 7),
    "ReduceLogSum": (lambda x, axis, keepdims: np.log(np.sum(x, axis=axis, keepdims=keepdims)), None),
    "ReduceLogSumExp": (_log_sum_exp, None),
}


@OPERATORS.register(*REDUCTIONS)
class Reduce(NativeOp):
    """One number per slice along ``axes``; ``keepdims`` (1) leaves extents of 1. Native where the axes are neighbours."""

    shape_inputs = (1,)

    def _axes(self, node: Node, rank: int, values: Sequence[np.ndarray | None]) -> list[int]:
        axes = self.setting(node, "axes", values, 1)
        if named(node, 1):
            known(node, axes, "an axis")
        if axes is None or not ints(axes):
            return [] if node.attrs.get("noop_with_empty_axes", 0) else list(range(rank))
        return sorted(axes_of(node, ints(axes), rank))

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        x = need(node, specs, 0, "data")
        shape = extents(x)
        axes = self._axes(node, len(shape), values)
        keep = node.attrs.get("keepdims", 1)
        return outputs(node, (x.dtype, [1 if i in axes else n for i, n in enumerate(shape) if keep or i not in axes]))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        x = need(node, inputs, 0, "data")
        axes = self._axes(node, x.ndim, inputs)
        function, _ = REDUCTIONS[node.op]
        with np.errstate(all="ignore"):
            return [np.asarray(function(x, axis=tuple(axes), keepdims=bool(node.attrs.get("keepdims", 1)))).astype(x.dtype, copy=False)]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        code = REDUCTIONS[node.op][1]
        x, y = node.inputs[0], node.outputs[0]
        if code is None or plan.spec(x).dtype != "float32":
            return None
        shape = extents(plan.spec(x))
        axes = self._axes(node, len(shape), known_values(node, plan, (1,)))
        wide = [a for a in axes if shape[a] > 1]
        if not wide:
            if code < 5:
                return Alias(y, x)
            wide = axes[:1]
            if not wide:
                return None
        first, last = wide[0], wide[-1]
        if any(shape[a] > 1 for a in range(first, last + 1) if a not in axes):
            return None
        fields = {"outer": prod(shape[:first]), "length": prod(shape[first : last + 1]), "inner": prod(shape[last + 1 :])}
        return [Step("reduce", {"x": x, "y": y}, {"operation": code, **fields})]


@OPERATORS.register("ArgMax", "ArgMin")
class ArgExtreme(Op):
    """Index (int64) of the largest or smallest element along ``axis`` (0); the first one, or the last with ``select_last_index``."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        shape = extents(need(node, specs, 0, "data"))
        axis = axis_of(node, int(node.attrs.get("axis", 0)), len(shape))
        if shape[axis] == 0:
            raise wrong(node, "an axis that is not empty", shape)
        keep = [1] if node.attrs.get("keepdims", 1) else []
        return outputs(node, ("int64", [*shape[:axis], *keep, *shape[axis + 1 :]]))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        x = need(node, inputs, 0, "data")
        axis = axis_of(node, int(node.attrs.get("axis", 0)), x.ndim)
        find = np.argmax if node.op == "ArgMax" else np.argmin
        if node.attrs.get("select_last_index", 0):
            y = x.shape[axis] - 1 - find(np.flip(x, axis), axis=axis)
        else:
            y = find(x, axis=axis)
        y = np.asarray(y, dtype=np.int64)
        return [np.expand_dims(y, axis) if node.attrs.get("keepdims", 1) else y]


@OPERATORS.register("TopK")
class TopK(Op):
    """The k largest (or smallest) elements along ``axis`` (-1), sorted, equal ones by index, and their indices (int64).

    k is input 1 or an attribute.
    """

    shape_inputs = (1,)

    def _settings(self, node: Node, shape: Sequence[int], values: Sequence[np.ndarray | None]) -> tuple[int, int]:
        axis = axis_of(node, int(node.attrs.get("axis", -1)), len(shape))
        k = ints(known(node, self.setting(node, "k", values, 1), "k"))[0]
        if not 0 <= k <= shape[axis]:
            raise wrong(node, f"k of at most {shape[axis]}", k)
        return axis, k

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        x = need(node, specs, 0, "X")
        shape = extents(x)
        axis, k = self._settings(node, shape, values)
        y = (*shape[:axis], k, *shape[axis + 1 :])
        return outputs(node, (x.dtype, y), ("int64", y))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        x = need(node, inputs, 0, "X")
        axis, k = self._settings(node, x.shape, inputs)
        if node.attrs.get("largest", 1):
            # a stable sort from the back of the flipped array keeps equal elements in order of their index
            order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
        else:
            order = np.argsort(x, axis=axis, kind="stable")
        first = np.take(order, range(k), axis=axis).astype(np.int64)
        return [np.take_along_axis(x, first, axis=axis), first][: len(node.outputs)]


@OPERATORS.register("CumSum")
class CumSum(Op):
    """Running sum along an axis (input 1 or attribute ``axis``), ``exclusive`` of the element itself, ``reverse`` from the end."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        x = need(node, specs, 0, "x")
        return outputs(node, (x.dtype, extents(x)))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        x = need(node, inputs, 0, "x")
        axis = axis_of(node, ints(known(node, self.setting(node, "axis", inputs, 1), "an axis"))[0], x.ndim)
        x = np.flip(x, axis) if node.attrs.get("reverse", 0) else x
        y = np.cumsum(x, axis=axis, dtype=x.dtype)
        if node.attrs.get("exclusive", 0):
            shifted = np.zeros_like(y)
            np.moveaxis(shifted, axis, 0)[1:] = np.moveaxis(y, axis, 0)[:-1]
            y = shifted
        return [np.flip(y, axis) if node.attrs.get("reverse", 0) else y]
