"""Pooling, channels-last: X [N, spatial..., C] -> Y [N, out..., C].

``pads`` are explicit (the importer has resolved ``auto_pad``). With ``ceil_mode`` the last window may reach over the end, but it is
dropped where it would start behind the input and its begin padding. Overhang never counts in an average.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ..graph import Node, TensorSpec
from .base import OPERATORS, Alias, Lowering, Step
from .checks import FLOAT, NativeOp, extents, ints, need, outputs, unsupported, wrong
from .conv import Window, pad_spatial, window_ints, window_of, windows


def pool_window(node: Node, rank: int) -> Window:
    """The window of a pooling node."""
    if "kernel_shape" not in node.attrs:
        raise wrong(node, "attribute kernel_shape", "none")
    if node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise unsupported(node, "auto_pad that has not been resolved")
    return window_of(node, rank, ints(node.attrs["kernel_shape"]))


def pooled(node: Node, spatial: Sequence[int], window: Window) -> list[int]:
    """Output extents."""
    out = []
    for n, begin, end, reach, stride in zip(spatial, window.begins, window.ends, window.reach, window.strides, strict=True):
        free = n + begin + end - reach
        if node.attrs.get("ceil_mode", 0):
            count = -(-free // stride) + 1
            if (count - 1) * stride >= n + begin:
                count -= 1
        else:
            count = free // stride + 1
        if count < 1:
            raise wrong(node, f"at least {reach} padded inputs along each spatial axis", list(spatial))
        out.append(count)
    return out


def lowest(dtype: np.dtype) -> float:
    """Neutral element of the maximum."""
    return -np.inf if np.issubdtype(dtype, np.floating) else np.iinfo(dtype).min


@OPERATORS.register("MaxPool", "AveragePool")
class Pool(NativeOp):
    """Maximum or average of a sliding window; the second output of MaxPool (indices) is not supported."""

    channels_last = True

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        x = need(node, specs, 0, "X")
        shape = extents(x)
        if len(shape) < 3:
            raise wrong(node, "X [N, spatial..., C]", shape)
        if any(node.outputs[1:]):
            raise unsupported(node, "the output of indices")
        out = pooled(node, shape[1:-1], pool_window(node, len(shape) - 2))
        form = (x.dtype, (shape[0], *out, shape[-1]))
        return outputs(node, form, form)

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        x = need(node, inputs, 0, "X")
        window = pool_window(node, x.ndim - 2)
        out = pooled(node, x.shape[1:-1], window)
        # as much padding behind as the last window needs: overhang of ceil mode, or less than `ends`
        ends = [
            (o - 1) * s + r - n - b for o, s, r, n, b in zip(out, window.strides, window.reach, x.shape[1:-1], window.begins, strict=True)
        ]
        taps = tuple(range(x.ndim - 1, 2 * x.ndim - 3))
        if node.op == "MaxPool":
            return [windows(pad_spatial(x, window.begins, ends, lowest(x.dtype)), window, out).max(axis=taps)]
        ones = np.ones((1, *x.shape[1:-1], 1), np.float32)
        if node.attrs.get("count_include_pad", 0):
            ones = pad_spatial(ones, window.begins, window.ends, 1.0)
            reach_of_ends = [e - w for e, w in zip(ends, window.ends, strict=True)]
            ones = pad_spatial(ones, [0] * len(out), reach_of_ends)
        else:
            ones = pad_spatial(ones, window.begins, ends)
        total = windows(pad_spatial(x, window.begins, ends), window, out).sum(axis=taps, dtype=x.dtype)
        count = np.maximum(windows(ones, window, out).sum(axis=taps), 1)
        return [np.asarray(total / count, dtype=x.dtype)]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        x, y = plan.spec(node.inputs[0]), plan.spec(node.outputs[0])
        shape, out = extents(x), extents(y)
        if x.dtype != FLOAT or len(shape) > 4:
            return None
        window = pool_window(node, len(shape) - 2)
        kind = 0 if node.op == "MaxPool" else 2 if node.attrs.get("count_include_pad", 0) else 1
        below, right = [0] * (2 - len(window.ends)) + window.ends
        return [
            Step(
                "pool",
                {"x": x.name, "y": y.name},
                {
                    "kind": kind,
                    "images": shape[0],
                    "channels": shape[-1],
                    **window_ints(window, out[1:-1], shape[1:-1]),
                    "pad_bottom": below,
                    "pad_right": right,
                },
            )
        ]


@OPERATORS.register("GlobalMaxPool", "GlobalAveragePool")
class GlobalPool(NativeOp):
    """Maximum or average over all pixels: Y [N, 1..., C]."""

    channels_last = True

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        x = need(node, specs, 0, "X")
        shape = extents(x)
        if len(shape) < 3 or 0 in shape[1:-1]:
            raise wrong(node, "X [N, spatial..., C] with at least one pixel", shape)
        return outputs(node, (x.dtype, (shape[0], *(1 for _ in shape[1:-1]), shape[-1])))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        x = need(node, inputs, 0, "X")
        axes = tuple(range(1, x.ndim - 1))
        return [x.max(axis=axes, keepdims=True) if node.op == "GlobalMaxPool" else x.mean(axis=axes, keepdims=True, dtype=x.dtype)]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        x = plan.spec(node.inputs[0])
        if x.dtype != FLOAT:
            return None
        shape = extents(x)
        fields = {"kind": int(node.op == "GlobalAveragePool"), "images": shape[0], "pixels": prod(shape[1:-1]), "channels": shape[-1]}
        return [Step("global_pool", {"x": x.name, "y": node.outputs[0]}, fields)]
