"""Normalisation and softmax.

BatchNormalization (statistics folded: X * scale + shift) and LRN are channels-last. InstanceNormalization and GroupNormalization keep
ONNX's order [N, C, spatial...]. LayerNormalization, RMSNormalization and Softmax name their axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ..graph import Node, TensorSpec
from .activations import Native, activate, activation_floats, activation_ints, native_activation, unary_step
from .arithmetic import binary_loops
from .base import OPERATORS, Alias, Lowering, Op, Step
from .checks import FLOAT, NativeOp, all_float, axis_of, broadcast, extents, named, need, optional, outputs, wrong
from .strides import rows_and_cols

#: operations of the ``reduce`` step, see :mod:`.reduce`
REDUCE_SUM, REDUCE_MAX = 0, 2


@OPERATORS.register("BatchNormalization")
class BatchNormalization(NativeOp):
    """Y = act(X * scale + shift), scale and shift one value per channel (last axis)."""

    channels_last = True

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        x, scale, shift = need(node, specs, 0, "X"), need(node, specs, 1, "scale"), need(node, specs, 2, "shift")
        shape = extents(x)
        if len(shape) < 2 or extents(scale) != shape[-1:] or extents(shift) != shape[-1:] or len(specs) > 3:
            raise wrong(node, "X [N, spatial..., C] and folded scale, shift [C]", [s and s.shape for s in specs])
        return outputs(node, (x.dtype, shape))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        x = need(node, inputs, 0, "X")
        y = x * need(node, inputs, 1, "scale")
        y += need(node, inputs, 2, "shift")
        return [activate(node, y.astype(x.dtype, copy=False))]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        act = native_activation(node)
        if act is None or not all_float(node, plan):
            return None
        x, scale, shift = node.inputs
        fields = {**rows_and_cols(extents(plan.spec(x))), **activation_ints(act)}
        return [Step("affine", {"x": x, "y": node.outputs[0], "scale": scale, "shift": shift}, fields, activation_floats(act))]


@OPERATORS.register("LRN")
class LRN(NativeOp):
    """Y = X / (bias + alpha / size * sum of squares of `size` channels around)^beta; the window reaches (size - 1) // 2 back."""

    channels_last = True

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        x = need(node, specs, 0, "X")
        if int(node.attrs.get("size", 0)) < 1:
            raise wrong(node, "attribute size of at least 1", node.attrs.get("size"))
        return outputs(node, (x.dtype, extents(x)))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        x = need(node, inputs, 0, "X")
        size, channels = int(node.attrs["size"]), x.shape[-1]
        back = (size - 1) // 2
        squares = np.pad(x * x, [(0, 0)] * (x.ndim - 1) + [(back, size - 1 - back)])
        total = np.zeros_like(x)
        for i in range(size):
            total += squares[..., i : i + channels]
        base = node.attrs.get("bias", 1.0) + node.attrs.get("alpha", 1e-4) / size * total
        return [np.asarray(x / base ** node.attrs.get("beta", 0.75), dtype=x.dtype)]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        if not all_float(node, plan):
            return None
        floats = {k: float(node.attrs.get(k, d)) for k, d in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))}
        fields = {**rows_and_cols(extents(plan.spec(node.inputs[0]))), "size": int(node.attrs["size"])}
        return [Step("lrn", {"x": node.inputs[0], "y": node.outputs[0]}, fields, floats)]


@OPERATORS.register("LayerNormalization")
class LayerNormalization(NativeOp):
    """Y = (X - mean) / sqrt(variance + epsilon) * Scale + B over the axes from ``axis`` (-1) on; optional outputs Mean, InvStdDev."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        x, scale, shift = need(node, specs, 0, "X"), need(node, specs, 1, "Scale"), optional(specs, 2)
        shape = extents(x)
        axis = axis_of(node, int(node.attrs.get("axis", -1)), len(shape))
        for role, spec in (("Scale", scale), ("B", shift)):
            if spec is not None and broadcast(node, shape, extents(spec)) != shape:
                raise wrong(node, f"{role} that broadcasts to {shape}", spec.shape)
        statistics = (FLOAT, (*shape[:axis], *(1 for _ in shape[axis:])))
        return outputs(node, (x.dtype, shape), statistics, statistics)

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        x, scale, shift = need(node, inputs, 0, "X"), need(node, inputs, 1, "Scale"), optional(inputs, 2)
        axes = tuple(range(axis_of(node, int(node.attrs.get("axis", -1)), x.ndim), x.ndim))
        mean = x.mean(axis=axes, keepdims=True, dtype=np.float32)
        centred = x - mean
        variance = (centred * centred).mean(axis=axes, keepdims=True, dtype=np.float32)
        inverse = 1 / np.sqrt(variance + np.float32(node.attrs.get("epsilon", 1e-5)))
        y = centred * inverse * scale
        y = y if shift is None else y + shift
        return [np.asarray(a, dtype=d) for a, d in ((y, x.dtype), (mean, np.float32), (inverse, np.float32))][: len(node.outputs)]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        if any(node.outputs[1:]) or not all_float(node, plan):
            return None
        shape = extents(plan.spec(node.inputs[0]))
        trailing = shape[axis_of(node, int(node.attrs.get("axis", -1)), len(shape)) :]
        tensors = {"x": node.inputs[0], "y": node.outputs[0]}
        for role, position in (("scale", 1), ("shift", 2)):
            if named(node, position):
                if extents(plan.spec(named(node, position))) != trailing:
                    return None
                tensors[role] = named(node, position)
        cols = prod(trailing)
        fields = {"rows": prod(shape) // cols, "cols": cols}
        return [Step("layer_norm", tensors, fields, {"epsilon": float(node.attrs.get("epsilon", 1e-5))})]


@OPERATORS.register("RMSNormalization")
class RMSNormalization(Op):
    """Y = X / sqrt(mean of squares + epsilon) * scale over the axes from ``axis`` (-1) on."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        x, scale = need(node, specs, 0, "X"), need(node, specs, 1, "scale")
        shape = extents(x)
        axis_of(node, int(node.attrs.get("axis", -1)), len(shape))
        if broadcast(node, shape, extents(scale)) != shape:
            raise wrong(node, f"scale that broadcasts to {shape}", scale.shape)
        return outputs(node, (x.dtype, shape))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        x, scale = need(node, inputs, 0, "X"), need(node, inputs, 1, "scale")
        axes = tuple(range(axis_of(node, int(node.attrs.get("axis", -1)), x.ndim), x.ndim))
        square = (x * x).mean(axis=axes, keepdims=True, dtype=np.float32)
        return [np.asarray(x / np.sqrt(square + np.float32(node.attrs.get("epsilon", 1e-5))) * scale, dtype=x.dtype)]


@OPERATORS.register("InstanceNormalization", "GroupNormalization")
class ChannelNormalization(NativeOp):
    """[N, C, spatial...] normalised per image and channel, or per image and one of ``num_groups`` groups; scale and B [C]."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        x, scale, shift = need(node, specs, 0, "X"), need(node, specs, 1, "scale"), need(node, specs, 2, "B")
        shape = extents(x)
        if len(shape) < 3 or extents(scale) != shape[1:2] or extents(shift) != shape[1:2]:
            raise wrong(node, "X [N, C, spatial...], scale and B [C]", f"{shape}, {scale.shape}, {shift.shape}")
        if shape[1] % self._groups(node, shape[1]):
            raise wrong(node, f"num_groups that divides {shape[1]}", node.attrs.get("num_groups"))
        return outputs(node, (x.dtype, shape))

    @staticmethod
    def _groups(node: Node, channels: int) -> int:
        return max(1, int(node.attrs.get("num_groups", 1)) if node.op == "GroupNormalization" else channels)

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        x, scale, shift = need(node, inputs, 0, "X"), need(node, inputs, 1, "scale"), need(node, inputs, 2, "B")
        groups = self._groups(node, x.shape[1])
        rows = x.reshape(x.shape[0], groups, prod(x.shape[1:]) // groups)
        centred = rows - rows.mean(axis=2, keepdims=True)
        variance = (centred * centred).mean(axis=2, keepdims=True)
        y = (centred / np.sqrt(variance + np.float32(node.attrs.get("epsilon", 1e-5)))).reshape(x.shape)
        per_channel = (-1, *(1 for _ in x.shape[2:]))
        return [np.asarray(y * scale.reshape(per_channel) + shift.reshape(per_channel), dtype=x.dtype)]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        """A layer normalisation of each group without scale, then scale and shift per channel in place."""
        if not all_float(node, plan):
            return None
        (x, scale, shift), y = node.inputs, node.outputs[0]
        shape = extents(plan.spec(x))
        rows = shape[0] * self._groups(node, shape[1])
        shapes = (shape, (shape[1], *(1 for _ in shape[2:])), shape)
        fields = {"rows": rows, "cols": prod(shape) // rows}
        normed = Step("layer_norm", {"x": x, "y": y}, fields, {"epsilon": float(node.attrs.get("epsilon", 1e-5))})
        scaled, shifted = binary_loops("mul", y, scale, y, shapes), binary_loops("add", y, shift, y, shapes)
        return None if scaled is None or shifted is None else [normed, scaled, shifted]


def _along_axis(node: Node, specs: Sequence[TensorSpec | None]) -> list[TensorSpec]:
    """The output of an operator that works along ``axis`` (-1) and keeps type and shape."""
    x = need(node, specs, 0, "input")
    axis_of(node, int(node.attrs.get("axis", -1)), len(x.shape))
    return outputs(node, (x.dtype, extents(x)))


@OPERATORS.register("LpNormalization")
class LpNormalization(Op):
    """X divided by its sum of magnitudes (``p`` 1) or Euclidean length (``p`` 2) along ``axis`` (-1); nothing divided by 0 is 0."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        if node.attrs.get("p", 2) not in (1, 2):
            raise wrong(node, "p of 1 or 2", node.attrs["p"])
        return _along_axis(node, specs)

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        x = need(node, inputs, 0, "input")
        length = np.linalg.norm(x, ord=node.attrs.get("p", 2), axis=int(node.attrs.get("axis", -1)), keepdims=True)
        return [np.asarray(x / np.where(length == 0, 1, length), dtype=x.dtype)]


@OPERATORS.register("Hardmax")
class Hardmax(Op):
    """1 at the first largest element along ``axis`` (-1), 0 elsewhere."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        return _along_axis(node, specs)

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        x = need(node, inputs, 0, "input")
        axis = int(node.attrs.get("axis", -1))
        y = np.zeros_like(x)
        if x.size:
            np.put_along_axis(y, np.expand_dims(np.argmax(x, axis=axis), axis), 1, axis=axis)
        return [y]


@OPERATORS.register("Softmax", "LogSoftmax")
class Softmax(NativeOp):
    """exp(X) / sum of exp(X) along ``axis`` (-1), or its logarithm."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        return _along_axis(node, specs)

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        x = need(node, inputs, 0, "input")
        axis = int(node.attrs.get("axis", -1))
        if x.size == 0:
            return [x.copy()]
        shifted = x - x.max(axis=axis, keepdims=True)
        powers = np.exp(shifted)
        total = powers.sum(axis=axis, keepdims=True)
        return [powers / total if node.op == "Softmax" else shifted - np.log(total)]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        if not all_float(node, plan):
            return None
        x, y = node.inputs[0], node.outputs[0]
        shape = extents(plan.spec(x))
        axis = axis_of(node, int(node.attrs.get("axis", -1)), len(shape))
        whole = (prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :]))
        fields = dict(zip(("outer", "length", "inner"), whole, strict=True))
        if node.op == "Softmax":
            return [Step("softmax", {"x": x, "y": y}, fields)]
        # x - peak - log(sum of exp(x - peak))
        line, powers = plan.workspace(4 * whole[0] * whole[2]), plan.workspace(4 * prod(whole))
        shapes = (whole, (whole[0], 1, whole[2]), whole)
        log, flat = Native("log"), {"rows": 1, "cols": whole[0] * whole[2]}
        below = binary_loops("sub", x, line, y, shapes)
        result = binary_loops("sub", y, line, y, shapes)
        if below is None or result is None:
            return None
        return [
            Step("reduce", {"x": x, "y": line}, {"operation": REDUCE_MAX, **fields}),
            below,
            unary_step(plan, y, y, Native("exp"), workspace=powers),
            Step("reduce", {"x": powers, "y": line}, {"operation": REDUCE_SUM, **fields}),
            Step(
                "unary",
                {"x": line, "y": line},
                {**activation_ints(log), **flat, "x_ld": flat["cols"], "y_ld": flat["cols"]},
                {"act_a": 0.0, "act_b": 0.0},
            ),
            result,
        ]
