"""Elementwise operators of two or more tensors with broadcasting: arithmetic, comparison, logic, choice.

Add, Sub, Mul and Div may carry a fused activation (:mod:`.activations`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from math import inf, prod
from typing import Any

import numpy as np

from ..graph import Node, TensorSpec
from .activations import Native, activate, activation_floats, activation_ints, native_activation, unary_step
from .base import OPERATORS, Alias, Lowering, Op, Step
from .checks import NativeOp, all_float, broadcast, extents, need, outputs, wrong
from .strides import RANK, broadcast_strides, dense_strides, fields, merge

#: Codes of EI_OPERATIONS in steps.h, in its order.
OPERATIONS: dict[str, int] = {name: code for code, name in enumerate("add sub mul div pow min max".split())}

Binary2 = Callable[[np.ndarray, np.ndarray], Any]


def binary_loops(
    operation: str, a: str, b: str, y: str, shapes: tuple[Sequence[int], Sequence[int], Sequence[int]], act: Native | None = None
) -> Step | None:
    """``y = act(a OP b)`` with the shapes of a, b and y; y is dense and may be a where the shapes agree. None beyond six loops."""
    shape_a, shape_b, shape = shapes
    dims, (_, walk_a, walk_b) = merge(shape, dense_strides(shape), broadcast_strides(shape_a, shape), broadcast_strides(shape_b, shape))
    if len(dims) > RANK:
        return None
    act = act or Native("none")
    return Step(
        "binary",
        {"a": a, "b": b, "y": y},
        {
            "operation": OPERATIONS[operation],
            **activation_ints(act),
            **fields("d", dims, 1),
            **fields("sa", walk_a, 0),
            **fields("sb", walk_b, 0),
        },
        activation_floats(act),
    )


def binary_step(plan: Lowering, operation: str, a: str, b: str, y: str, act: Native | None = None) -> Step | None:
    """:func:`binary_loops` of three named tensors."""
    return binary_loops(operation, a, b, y, (extents(plan.spec(a)), extents(plan.spec(b)), extents(plan.spec(y))), act)


def chain(plan: Lowering, operation: str, operands: Sequence[str], y: str, act: Native | None = None) -> list[Step] | None:
    """``y = act(operand OP operand OP ...)``: the first step fills y, the others work in place."""
    left = operands[0]
    steps = []
    for i, operand in enumerate(operands[1:], 2):
        step = binary_step(plan, operation, left, operand, y, act if i == len(operands) else None)
        if step is None:
            return None
        steps.append(step)
        left = y
    return steps


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Division; of integers as in C: towards zero."""
    if np.issubdtype(a.dtype, np.floating):
        return np.asarray(a / b)
    quotient = np.asarray(a // b)
    return np.asarray(quotient + ((np.asarray(a % b) != 0) & ((a < 0) != (b < 0))), dtype=a.dtype)


def _same_dtype(node: Node, specs: Sequence[TensorSpec]) -> None:
    if len({s.dtype for s in specs}) > 1:
        raise wrong(node, "inputs of one dtype", [s.dtype for s in specs])


ARITHMETIC: dict[str, Binary2] = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": divide, "Pow": np.power}


@OPERATORS.register(*ARITHMETIC)
class Arithmetic(NativeOp):
    """Y = act(A op B). Integers divide towards zero; Pow keeps the dtype of its base."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        a, b = need(node, specs, 0, "A"), need(node, specs, 1, "B")
        if node.op != "Pow":
            _same_dtype(node, (a, b))
        return outputs(node, (a.dtype, broadcast(node, extents(a), extents(b))))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        a, b = need(node, inputs, 0, "A"), need(node, inputs, 1, "B")
        with np.errstate(all="ignore"):
            y = np.asarray(ARITHMETIC[node.op](a, b)).astype(a.dtype, copy=False)
        return [activate(node, y)]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        act = native_activation(node)
        if act is None or not all_float(node, plan):
            return None
        return chain(plan, node.op.lower(), node.inputs, node.outputs[0], act)


@OPERATORS.register("Min", "Max", "Sum", "Mean")
class Variadic(NativeOp):
    """Minimum, maximum, sum or mean of one or more tensors."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        given = [need(node, specs, i, "data") for i in range(max(1, len(node.inputs)))]
        _same_dtype(node, given)
        return outputs(node, (given[0].dtype, broadcast(node, *map(extents, given))))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        given = [need(node, inputs, i, "data") for i in range(max(1, len(node.inputs)))]
        function: Binary2 = {"Min": np.minimum, "Max": np.maximum}.get(node.op, np.add)
        y = np.asarray(reduce(function, given))
        if node.op == "Mean":
            y = np.asarray(y / len(given))
        return [y.astype(given[0].dtype, copy=False)]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        if not all_float(node, plan):
            return None
        if len(node.inputs) == 1:
            return Alias(node.outputs[0], node.inputs[0])
        y = node.outputs[0]
        steps = chain(plan, {"Min": "min", "Max": "max"}.get(node.op, "add"), node.inputs, y)
        if steps and node.op == "Mean":
            shape = extents(plan.spec(y))
            last = binary_loops("mul", y, plan.literal(np.array(1 / len(node.inputs), np.float32)), y, (shape, (), shape))
            return None if last is None else [*steps, last]
        return steps


COMPARISONS: dict[str, Binary2] = {
    "Equal": np.equal,
    "Greater": np.greater,
    "Less": np.less,
    "GreaterOrEqual": np.greater_equal,
    "LessOrEqual": np.less_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
}


@OPERATORS.register(*COMPARISONS)
class Comparison(Op):
    """Bool tensor of A op B."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        a, b = need(node, specs, 0, "A"), need(node, specs, 1, "B")
        _same_dtype(node, (a, b))
        return outputs(node, ("bool", broadcast(node, extents(a), extents(b))))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        return [np.asarray(COMPARISONS[node.op](need(node, inputs, 0, "A"), need(node, inputs, 1, "B")))]


@OPERATORS.register("Not")
class Not(Op):
    """Logical negation of a bool tensor."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        return outputs(node, ("bool", extents(need(node, specs, 0, "X"))))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        return [np.asarray(np.logical_not(need(node, inputs, 0, "X")))]


@OPERATORS.register("Mod")
class Mod(Op):
    """Remainder with the sign of the divisor, or, with ``fmod`` 1, of the dividend."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        a, b = need(node, specs, 0, "A"), need(node, specs, 1, "B")
        _same_dtype(node, (a, b))
        return outputs(node, (a.dtype, broadcast(node, extents(a), extents(b))))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        a, b = need(node, inputs, 0, "A"), need(node, inputs, 1, "B")
        remainder = np.fmod if node.attrs.get("fmod", 0) else np.mod
        with np.errstate(all="ignore"):
            return [np.asarray(remainder(a, b)).astype(a.dtype, copy=False)]


@OPERATORS.register("Where")
class Where(Op):
    """Y = X where condition holds, else the third input; all three broadcast."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        condition, x, y = need(node, specs, 0, "condition"), need(node, specs, 1, "X"), need(node, specs, 2, "Y")
        if condition.dtype != "bool":
            raise wrong(node, "a bool condition", condition.dtype)
        _same_dtype(node, (x, y))
        return outputs(node, (x.dtype, broadcast(node, extents(condition), extents(x), extents(y))))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        x = need(node, inputs, 1, "X")
        return [np.asarray(np.where(need(node, inputs, 0, "condition"), x, need(node, inputs, 2, "Y")), dtype=x.dtype)]


@OPERATORS.register("PRelu")
class PRelu(NativeOp):
    """Y = X where X >= 0, else X * slope; slope broadcasts to the shape of X."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        x, slope = need(node, specs, 0, "X"), need(node, specs, 1, "slope")
        if broadcast(node, extents(x), extents(slope)) != extents(x):
            raise wrong(node, f"a slope that broadcasts to {x.shape}", slope.shape)
        return outputs(node, (x.dtype, extents(x)))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        x, slope = need(node, inputs, 0, "X"), need(node, inputs, 1, "slope")
        return [np.asarray(np.where(x < 0, x * slope, x), dtype=x.dtype)]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        """max(X, 0) + slope * min(X, 0), the second term in a workspace."""
        if not all_float(node, plan):
            return None
        x, slope, y = node.inputs[0], node.inputs[1], node.outputs[0]
        shape = extents(plan.spec(x))
        negative = plan.workspace(4 * prod(shape))
        scaled = binary_loops("mul", negative, slope, negative, (shape, extents(plan.spec(slope)), shape))
        total = binary_loops("add", y, negative, y, (shape, shape, shape))
        if scaled is None or total is None:
            return None
        # x may be a slice of something wider, so it is walked in rows; only the workspace is known to be dense
        below = unary_step(plan, x, y, Native("clip", -inf, 0.0), workspace=negative)
        return [below, unary_step(plan, x, y, Native("relu")), scaled, total]
