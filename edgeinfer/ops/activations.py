"""Elementwise functions of one tensor, alone or fused into the operator before them (attribute ``activation``).

Parameters keep their ONNX names (``alpha``, ``beta``, ``min``, ``max``, ``approximate``); a fused activation has them as attributes of
the node it is fused into. ``Silu`` and ``Swish`` are x * sigmoid(alpha x).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..graph import Node, TensorSpec
from .base import OPERATORS, Alias, Lowering, Op, Step
from .checks import FLOAT, NativeOp, all_float, extents, named, need, optional, outputs, unsupported
from .strides import rows_and_cols

Attrs = Mapping[str, Any]

#: Codes of EI_ACTIVATIONS in steps.h, in its order.
ACTIVATIONS: dict[str, int] = {
    name: code
    for code, name in enumerate(
        "none relu leaky_relu clip sigmoid tanh hard_sigmoid hard_swish gelu gelu_tanh erf exp log sqrt neg abs reciprocal "
        "floor ceil round softplus elu silu sin cos".split()
    )
}


class Native(NamedTuple):
    """A function that the kernels know: its name in :data:`ACTIVATIONS` and its two parameters."""

    name: str
    a: float = 0.0
    b: float = 0.0


class Function(NamedTuple):
    """``run(x, attrs)`` is the NumPy form; ``native(attrs)`` the kernels' name for it or None."""

    run: Callable[[np.ndarray, Attrs], np.ndarray]
    native: Callable[[Attrs], Native | None]


def erf(x: np.ndarray) -> np.ndarray:
    """The error function, elementwise, in double precision."""
    return np.fromiter(map(math.erf, np.ravel(x).tolist()), np.float64, np.size(x)).reshape(np.shape(x))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _gelu(x: np.ndarray, attrs: Attrs) -> np.ndarray:
    if attrs.get("approximate", "none") == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def _elu(x: np.ndarray, alpha: float) -> np.ndarray:
    return np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)


def _limits(attrs: Attrs) -> tuple[float, float]:
    low, high = attrs.get("min"), attrs.get("max")
    return (-math.inf if low is None else float(low)), (math.inf if high is None else float(high))


def _clip(x: np.ndarray, attrs: Attrs) -> np.ndarray:
    low, high = attrs.get("min"), attrs.get("max")
    x = x if low is None else np.maximum(x, np.asarray(low).astype(x.dtype))
    return x if high is None else np.minimum(x, np.asarray(high).astype(x.dtype))


def _plain(name: str, run: Callable[[np.ndarray], np.ndarray]) -> Function:
    return Function(lambda x, attrs: run(x), lambda attrs: Native(name))


def _numpy(run: Callable[[np.ndarray, Attrs], np.ndarray]) -> Function:
    return Function(run, lambda attrs: None)


_SWISH = Function(
    lambda x, attrs: x * _sigmoid(attrs.get("alpha", 1.0) * x),
    lambda attrs: Native("silu") if attrs.get("alpha", 1.0) == 1.0 else None,
)

#: ONNX operator name -> function. Those with a native form may be fused.
FUNCTIONS: dict[str, Function] = {
    "Relu": _plain("relu", lambda x: np.maximum(x, 0)),
    "LeakyRelu": Function(
        lambda x, attrs: np.where(x < 0, attrs.get("alpha", 0.01) * x, x), lambda attrs: Native("leaky_relu", attrs.get("alpha", 0.01))
    ),
    "Clip": Function(_clip, lambda attrs: Native("clip", *_limits(attrs))),
    "Sigmoid": _plain("sigmoid", _sigmoid),
    "Tanh": _plain("tanh", np.tanh),
    "HardSigmoid": Function(
        lambda x, attrs: np.clip(attrs.get("alpha", 0.2) * x + attrs.get("beta", 0.5), 0, 1),
        lambda attrs: Native("hard_sigmoid", attrs.get("alpha", 0.2), attrs.get("beta", 0.5)),
    ),
    "HardSwish": _plain("hard_swish", lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "Gelu": Function(_gelu, lambda attrs: Native("gelu_tanh" if attrs.get("approximate", "none") == "tanh" else "gelu")),
    "Erf": _plain("erf", erf),
    "Exp": _plain("exp", np.exp),
    "Log": _plain("log", np.log),
    "Sqrt": _plain("sqrt", np.sqrt),
    "Neg": _plain("neg", np.negative),
    "Abs": _plain("abs", np.abs),
    "Reciprocal": _plain("reciprocal", lambda x: 1 / x),
    "Floor": _plain("floor", np.floor),
    "Ceil": _plain("ceil", np.ceil),
    "Round": _plain("round", np.rint),
    "Softplus": _plain("softplus", lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))),
    "Elu": Function(lambda x, attrs: _elu(x, attrs.get("alpha", 1.0)), lambda attrs: Native("elu", attrs.get("alpha", 1.0))),
    "Silu": _SWISH,
    "Swish": _SWISH,
    "Sin": _plain("sin", np.sin),
    "Cos": _plain("cos", np.cos),
    "Tan": _numpy(lambda x, attrs: np.tan(x)),
    "Asin": _numpy(lambda x, attrs: np.arcsin(x)),
    "Acos": _numpy(lambda x, attrs: np.arccos(x)),
    "Atan": _numpy(lambda x, attrs: np.arctan(x)),
    "Sinh": _numpy(lambda x, attrs: np.sinh(x)),
    "Cosh": _numpy(lambda x, attrs: np.cosh(x)),
    "Asinh": _numpy(lambda x, attrs: np.arcsinh(x)),
    "Acosh": _numpy(lambda x, attrs: np.arccosh(x)),
    "Atanh": _numpy(lambda x, attrs: np.arctanh(x)),
    "Sign": _numpy(lambda x, attrs: np.sign(x)),
    "Softsign": _numpy(lambda x, attrs: x / (1 + np.abs(x))),
    "Mish": _numpy(lambda x, attrs: x * np.tanh(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))),
    "Selu": _numpy(lambda x, attrs: attrs.get("gamma", 1.05070102214813232421875) * _elu(x, attrs.get("alpha", 1.67326319217681884765625))),
    "Celu": _numpy(
        lambda x, attrs: np.maximum(x, 0) + np.minimum(0, attrs.get("alpha", 1.0) * np.expm1(np.minimum(x, 0) / attrs.get("alpha", 1.0)))
    ),
    "ThresholdedRelu": _numpy(lambda x, attrs: np.where(x > attrs.get("alpha", 1.0), x, 0)),
}


def apply(name: str, x: np.ndarray, attrs: Attrs) -> np.ndarray:
    """``name`` of every element of ``x``; the dtype stays."""
    with np.errstate(all="ignore"):
        return np.asarray(FUNCTIONS[name].run(x, attrs), dtype=x.dtype)


def activate(node: Node, x: np.ndarray) -> np.ndarray:
    """The fused activation of a node, or ``x`` itself where it has none."""
    name = node.attrs.get("activation")
    if name is None:
        return x
    if name not in FUNCTIONS:
        raise unsupported(node, f"activation {name!r}")
    return apply(name, x, node.attrs)


def native_activation(node: Node) -> Native | None:
    """The fused activation as the kernels know it; ``none`` where the node has none, None where only NumPy has it."""
    name = node.attrs.get("activation")
    if name is None:
        return Native("none")
    if name not in FUNCTIONS:
        raise unsupported(node, f"activation {name!r}")
    return FUNCTIONS[name].native(node.attrs)


def activation_ints(act: Native) -> dict[str, int]:
    """Step fields of an activation."""
    return {"activation": ACTIVATIONS[act.name]}


def activation_floats(act: Native) -> dict[str, float]:
    """Step fields of an activation."""
    return {"act_a": float(act.a), "act_b": float(act.b)}


def unary_step(plan: Lowering, x: str, y: str, act: Native, workspace: str = "") -> Step:
    """``y = act(x)`` for tensors of one shape; the result goes to a dense ``workspace`` of that size instead where one is given."""
    sheet = rows_and_cols(extents(plan.spec(y)))
    if workspace:
        return Step("unary", {"x": x, "y": workspace}, {**activation_ints(act), **sheet, "y_ld": sheet["cols"]}, activation_floats(act))
    return Step("unary", {"x": x, "y": y}, {**activation_ints(act), **sheet}, activation_floats(act))


@OPERATORS.register(*(name for name in FUNCTIONS if name != "Clip"))
class Unary(NativeOp):
    """Y = f(X), elementwise, same shape and dtype."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        x = need(node, specs, 0, "X")
        return outputs(node, (x.dtype, extents(x)))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        return [apply(node.op, need(node, inputs, 0, "X"), node.attrs)]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        act = FUNCTIONS[node.op].native(node.attrs)
        if act is None or not all_float(node, plan):
            return None
        return [unary_step(plan, node.inputs[0], node.outputs[0], act)]


@OPERATORS.register("Clip")
class Clip(NativeOp):
    """Y = min(max(X, min), max); the limits are attributes or inputs 1 and 2, each may be left out."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        x = need(node, specs, 0, "X")
        return outputs(node, (x.dtype, extents(x)))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        limits = {k: node.attrs.get(k, optional(inputs, i)) for i, k in ((1, "min"), (2, "max"))}
        return [apply("Clip", need(node, inputs, 0, "X"), limits)]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        if plan.spec(node.inputs[0]).dtype != FLOAT:
            return None
        limits = dict(node.attrs)
        for position, key in ((1, "min"), (2, "max")):
            name = named(node, position)
            if key not in limits and name:
                value = plan.value(name)
                if value is None:
                    return None
                limits[key] = float(np.asarray(value).reshape(()))
        return [unary_step(plan, node.inputs[0], node.outputs[0], Native("clip", *_limits(limits)))]


@OPERATORS.register("IsNaN", "IsInf")
class IsSpecial(Op):
    """Bool tensor: which elements are not a number, or are infinite (``detect_positive``, ``detect_negative``)."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        return outputs(node, ("bool", extents(need(node, specs, 0, "X"))))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        x = need(node, inputs, 0, "X")
        if node.op == "IsNaN":
            return [np.asarray(np.isnan(x))]
        high = np.isposinf(x) if node.attrs.get("detect_positive", 1) else np.False_
        low = np.isneginf(x) if node.attrs.get("detect_negative", 1) else np.False_
        return [np.broadcast_to(np.logical_or(high, low), x.shape)]
