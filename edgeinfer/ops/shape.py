"""Operators that describe elements instead of computing them: the same ones under another shape, shapes themselves, constants, dtypes.

Settings that ONNX passes as inputs (shape, axes) are read from the attribute of that name or from the input (see :meth:`.base.Op.setting`).
Dtypes in attributes (``Cast.to``, ``ConstantOfShape.dtype``) are NumPy names; ``ConstantOfShape.value`` is a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ..graph import Node, TensorSpec
from .base import OPERATORS, Alias, Lowering, Op, Step
from .checks import FLOAT, NativeOp, axes_of, extents, ints, known, need, outputs, wrong

Values = Sequence[np.ndarray | None]


class View(Op):
    """Base of operators whose output is the input under another shape."""

    is_view = True

    def shape(self, node: Node, shape: tuple[int, ...], values: Values) -> Sequence[int]:
        """The other shape."""
        raise NotImplementedError

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Values) -> list[TensorSpec]:
        x = need(node, specs, 0, "data")
        shape = extents(x)
        target = self.shape(node, shape, values)
        if prod(target) != prod(shape):
            raise wrong(node, f"a shape of {prod(shape)} elements (input {shape})", list(target))
        return outputs(node, (x.dtype, target))

    def run(self, node: Node, inputs: Values) -> list[np.ndarray]:
        x = need(node, inputs, 0, "data")
        return [x.reshape(self.shape(node, x.shape, inputs))]

    def lower(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        return Alias(node.outputs[0], node.inputs[0])


@OPERATORS.register("Identity")
class Identity(View):
    """Y = X."""

    def shape(self, node: Node, shape: tuple[int, ...], values: Values) -> Sequence[int]:
        return shape


@OPERATORS.register("Reshape")
class Reshape(View):
    """Same elements under ``shape``: -1 is computed, 0 keeps the extent of the input (unless ``allowzero``)."""

    shape_inputs = (1,)

    def shape(self, node: Node, shape: tuple[int, ...], values: Values) -> Sequence[int]:
        target = ints(known(node, self.setting(node, "shape", values, 1), "a shape"))
        if not node.attrs.get("allowzero", 0):
            if any(n == 0 and i >= len(shape) for i, n in enumerate(target)):
                raise wrong(node, f"zeros in shape only for the {len(shape)} axes of the input", target)
            target = [shape[i] if n == 0 else n for i, n in enumerate(target)]
        if any(n < -1 for n in target) or target.count(-1) > 1:
            raise wrong(node, "extents and at most one -1", target)
        if -1 in target:
            rest = prod(n for n in target if n != -1)
            if rest == 0 or prod(shape) % rest:
                raise wrong(node, f"a shape that divides {prod(shape)} elements (input {shape})", target)
            target[target.index(-1)] = prod(shape) // rest
        return target


@OPERATORS.register("Flatten")
class Flatten(View):
    """Two axes: those before ``axis`` (1), and the rest."""

    def shape(self, node: Node, shape: tuple[int, ...], values: Values) -> Sequence[int]:
        axis = int(node.attrs.get("axis", 1))
        if not -len(shape) <= axis <= len(shape):
            raise wrong(node, f"an axis in [{-len(shape)}, {len(shape)}]", axis)
        axis += len(shape) if axis < 0 else 0
        return prod(shape[:axis]), prod(shape[axis:])


@OPERATORS.register("Squeeze")
class Squeeze(View):
    """Without the given axes of extent 1, or without all of them."""

    shape_inputs = (1,)

    def shape(self, node: Node, shape: tuple[int, ...], values: Values) -> Sequence[int]:
        axes = self.setting(node, "axes", values, 1)
        if axes is None:
            if len(node.inputs) > 1 and node.inputs[1]:
                known(node, axes, "an axis")
            return [n for n in shape if n != 1]
        gone = axes_of(node, ints(axes), len(shape))
        if any(shape[a] != 1 for a in gone):
            raise wrong(node, "extents of 1 along the axes", f"{shape}, axes {axes}")
        return [n for i, n in enumerate(shape) if i not in gone]


@OPERATORS.register("Unsqueeze")
class Unsqueeze(View):
    """With new axes of extent 1; ``axes`` count in the output."""

    shape_inputs = (1,)

    def shape(self, node: Node, shape: tuple[int, ...], values: Values) -> Sequence[int]:
        axes = ints(known(node, self.setting(node, "axes", values, 1), "an axis"))
        new = axes_of(node, axes, len(shape) + len(axes))
        old = iter(shape)
        return [1 if i in new else next(old) for i in range(len(shape) + len(new))]


@OPERATORS.register("Shape")
class Shape(Op):
    """Extents of the input (int64), from ``start`` (0) to ``end``."""

    reads_shapes_only = True

    @staticmethod
    def _part(node: Node, shape: Sequence[int]) -> Sequence[int]:
        return shape[slice(node.attrs.get("start", 0), node.attrs.get("end"))]

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Values) -> list[TensorSpec]:
        return outputs(node, ("int64", (len(self._part(node, extents(need(node, specs, 0, "data")))),)))

    def run(self, node: Node, inputs: Values) -> list[np.ndarray]:
        return [np.array(self._part(node, need(node, inputs, 0, "data").shape), np.int64)]


@OPERATORS.register("Size")
class Size(Op):
    """Number of elements of the input (int64 scalar)."""

    reads_shapes_only = True

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Values) -> list[TensorSpec]:
        extents(need(node, specs, 0, "data"))
        return outputs(node, ("int64", ()))

    def run(self, node: Node, inputs: Values) -> list[np.ndarray]:
        return [np.array(need(node, inputs, 0, "data").size, np.int64)]


@OPERATORS.register("ConstantOfShape")
class ConstantOfShape(NativeOp):
    """Attribute ``value`` (0, a number or a list of one) of dtype ``dtype`` (float32) everywhere in the shape that input 0 gives."""

    shape_inputs = (0,)

    def _shape(self, node: Node, values: Values) -> list[int]:
        shape = ints(known(node, self.setting(node, "shape", values, 0), "a shape"))
        if min(shape, default=0) < 0:
            raise wrong(node, "extents of at least 0", shape)
        return shape

    @staticmethod
    def _value(node: Node) -> Any:
        value = node.attrs.get("value", 0)
        return value[0] if isinstance(value, list) else value

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Values) -> list[TensorSpec]:
        return outputs(node, (str(np.dtype(node.attrs.get("dtype", FLOAT))), self._shape(node, values)))

    def run(self, node: Node, inputs: Values) -> list[np.ndarray]:
        return [np.full(self._shape(node, inputs), self._value(node), np.dtype(node.attrs.get("dtype", FLOAT)))]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        y = plan.spec(node.outputs[0])
        if y.dtype != FLOAT:
            return None
        return [Step("fill", {"y": y.name}, {"count": prod(extents(y))}, {"value": float(self._value(node))})]


@OPERATORS.register("Range")
class Range(Op):
    """start, start + delta, ... before limit."""

    shape_inputs = (0, 1, 2)

    def _range(self, node: Node, values: Values) -> np.ndarray:
        start, limit, delta = (known(node, need(node, values, i, r), "a limit") for i, r in enumerate(("start", "limit", "delta")))
        start, limit, delta = (np.asarray(v).reshape(()) for v in (start, limit, delta))
        if delta == 0:
            raise wrong(node, "a delta other than 0", 0)
        count = max(0, int(np.ceil((limit - start) / delta)))
        return np.asarray(start + np.arange(count, dtype=start.dtype) * delta, dtype=start.dtype)

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Values) -> list[TensorSpec]:
        for i, value in enumerate(values):
            if need(node, specs, i, "limit") is not None:
                known(node, value, "a limit")
        y = self._range(node, values)
        return outputs(node, (str(y.dtype), y.shape))

    def run(self, node: Node, inputs: Values) -> list[np.ndarray]:
        return [self._range(node, inputs)]


@OPERATORS.register("Cast")
class Cast(Op):
    """X as dtype ``to`` (a NumPy name); floats become integers towards zero."""

    @staticmethod
    def _to(node: Node) -> np.dtype:
        try:
            return np.dtype(node.attrs["to"])
        except (KeyError, TypeError):
            raise wrong(node, "attribute to with the name of a dtype", node.attrs.get("to")) from None

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Values) -> list[TensorSpec]:
        return outputs(node, (str(self._to(node)), extents(need(node, specs, 0, "input"))))

    def run(self, node: Node, inputs: Values) -> list[np.ndarray]:
        with np.errstate(all="ignore"):
            return [need(node, inputs, 0, "input").astype(self._to(node))]

    def lower(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        same = plan.spec(node.inputs[0]).dtype == plan.spec(node.outputs[0]).dtype
        return Alias(node.outputs[0], node.inputs[0]) if same else None
