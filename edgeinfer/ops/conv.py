"""Conv, channels-last: X [N, spatial..., C], W [O, kernel..., C / group], B [O], residual like Y -> Y [N, out..., O].

Y = act(conv(X, W) + B + residual); every attribute that describes the window is present (see :mod:`edgeinfer.graph`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from ..graph import Node, TensorSpec
from ..kernels.program import ALGORITHMS
from .activations import activate, activation_floats, activation_ints, native_activation
from .base import OPERATORS, Alias, Lowering, Step
from .checks import FLOAT, NativeOp, extents, ints, named, need, optional, outputs, wrong

#: algorithms of the minimal filtering family: name -> outputs and taps of one axis of a tile (winograd.c)
WINOGRAD = {"winograd_2_3": (2, 3), "winograd_4_3": (4, 3), "winograd_2_5": (2, 5)}


def algorithms(step: Step) -> tuple[str, ...]:
    """Algorithms that can do a ``conv`` step, ``direct`` first; each gives the same bits for any batch, but not those of another one."""
    i = step.ints
    fits = i["kh"] == i["kw"] and i["stride_h"] == i["stride_w"] == i["dilation_h"] == i["dilation_w"] == 1
    return ("direct", *(name for name, (_, taps) in WINOGRAD.items() if fits and taps == i["kh"] and name in ALGORITHMS))


class Window(NamedTuple):
    """A window that slides over the spatial axes, one value per axis."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    begins: list[int]
    ends: list[int]

    @property
    def reach(self) -> list[int]:
        """Inputs from the first tap to the last, both counted."""
        return [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]


def window_of(node: Node, rank: int, kernel: Sequence[int]) -> Window:
    """The window that a node's attributes describe, missing ones with ONNX's defaults."""
    pads = ints(node.attrs.get("pads", [0] * (2 * rank)))
    window = Window(
        list(kernel), ints(node.attrs.get("strides", [1] * rank)), ints(node.attrs.get("dilations", [1] * rank)), pads[:rank], pads[rank:]
    )
    for name, values in window._asdict().items():
        if len(values) != rank:
            raise wrong(node, f"{rank} values in {name}", values)
    if min([*window.kernel, *window.strides, *window.dilations], default=1) < 1:
        raise wrong(node, "kernel, strides and dilations of at least 1", node.attrs)
    return window


def pad_spatial(x: np.ndarray, begins: Sequence[int], ends: Sequence[int], value: float = 0.0) -> np.ndarray:
    """X with its spatial axes padded; negative pads crop."""
    keep = [slice(None)] + [slice(max(0, -b), n + min(0, e)) for n, b, e in zip(x.shape[1:-1], begins, ends, strict=True)]
    widths = [(0, 0), *((max(0, b), max(0, e)) for b, e in zip(begins, ends, strict=True)), (0, 0)]
    x = x[tuple(keep)]
    return np.pad(x, widths, constant_values=value) if any(map(any, widths)) else x


def windows(x: np.ndarray, window: Window, out: Sequence[int]) -> np.ndarray:
    """View [N, out..., kernel..., C] of an X that is padded already: all windows, overlapping."""
    spatial = x.strides[1:-1]
    shape = (x.shape[0], *out, *window.kernel, x.shape[-1])
    step = [s * t for s, t in zip(spatial, window.strides, strict=True)]
    tap = [s * d for s, d in zip(spatial, window.dilations, strict=True)]
    return np.lib.stride_tricks.as_strided(x, shape, (x.strides[0], *step, *tap, x.strides[-1]), writeable=False)


def window_ints(window: Window, out: Sequence[int], in_: Sequence[int]) -> dict[str, int]:
    """Step fields of a window over one or two spatial axes; one axis counts as a picture of height 1."""
    fields = {"in": in_, "out": out, "k": window.kernel, "stride": window.strides, "dilation": window.dilations}
    found = {}
    for name, values in fields.items():
        h, w = ("kh", "kw") if name == "k" else (f"{name}_h", f"{name}_w")
        found[h], found[w] = (int(v) for v in ([1] * (2 - len(values)) + list(values)))
    found["pad_top"], found["pad_left"] = [0] * (2 - len(window.begins)) + window.begins
    return found


@OPERATORS.register("Conv")
class Conv(NativeOp):
    """Convolution of any spatial rank; native for one and two spatial axes and coded W."""

    channels_last = True

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        x, w = need(node, specs, 0, "X"), need(node, specs, 1, "W")
        shape, kernel = extents(x), extents(w)
        if len(shape) < 3 or len(kernel) != len(shape):
            raise wrong(node, "X and W of one rank, 3 or more", f"{shape} and {kernel}")
        group = int(node.attrs.get("group", 1))
        if group < 1 or kernel[-1] * group != shape[-1] or kernel[0] % group:
            raise wrong(node, f"channels X {shape[-1]} = group {group} x W's {kernel[-1]}, outputs a multiple of group", f"W {kernel}")
        window = window_of(node, len(shape) - 2, kernel[1:-1])
        if "kernel_shape" in node.attrs and ints(node.attrs["kernel_shape"]) != window.kernel:
            raise wrong(node, f"kernel_shape {window.kernel} as in W", node.attrs["kernel_shape"])
        out = []
        for n, begin, end, reach, stride in zip(shape[1:-1], window.begins, window.ends, window.reach, window.strides, strict=True):
            if n + begin + end < reach:
                raise wrong(node, f"at least {reach} padded inputs along each spatial axis", f"{shape} with pads {begin}, {end}")
            out.append((n + begin + end - reach) // stride + 1)
        y = (shape[0], *out, kernel[0])
        bias, residual = optional(specs, 2), optional(specs, 3)
        if bias is not None and extents(bias) != (kernel[0],):
            raise wrong(node, f"B of shape {(kernel[0],)}", bias.shape)
        if residual is not None and extents(residual) != y:
            raise wrong(node, f"residual of shape {y}", residual.shape)
        return outputs(node, (x.dtype, y))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        x, w = need(node, inputs, 0, "X"), need(node, inputs, 1, "W")
        window = window_of(node, x.ndim - 2, w.shape[1:-1])
        group = int(node.attrs.get("group", 1))
        padded = pad_spatial(x, window.begins, window.ends)
        out = [(n - r) // s + 1 for n, r, s in zip(padded.shape[1:-1], window.reach, window.strides, strict=True)]
        taps = windows(padded, window, out)
        if w.shape[-1] == 1 and group == x.shape[-1] == w.shape[0]:
            y = self._depthwise(taps, w, len(out))
        else:
            y = np.empty((x.shape[0], *out, w.shape[0]), x.dtype)
            per_in, per_out = w.shape[-1], w.shape[0] // group
            for g in range(group):
                # one image at a time: the columns of a whole batch would be a copy of kernel size times the input
                weights = w[g * per_out : (g + 1) * per_out].reshape(per_out, -1).T
                for image in range(x.shape[0]):
                    columns = taps[image, ..., g * per_in : (g + 1) * per_in].reshape(prod(out), -1)
                    y[image, ..., g * per_out : (g + 1) * per_out] = (columns @ weights).reshape(*out, per_out)
        for addend in (optional(inputs, 2), optional(inputs, 3)):
            if addend is not None:
                y += addend
        return [activate(node, y)]

    @staticmethod
    def _depthwise(taps: np.ndarray, w: np.ndarray, rank: int) -> np.ndarray:
        y = np.zeros((*taps.shape[: 1 + rank], taps.shape[-1]), taps.dtype)
        for tap in np.ndindex(*w.shape[1:-1]):
            y += taps[(slice(None),) * (1 + rank) + tap] * w[(slice(None), *tap, 0)]
        return y

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        x, y = plan.spec(node.inputs[0]), plan.spec(node.outputs[0])
        w = plan.spec(node.inputs[1])
        act = native_activation(node)
        shape, out, kernel = extents(x), extents(y), extents(w)
        if act is None or x.dtype != FLOAT or len(shape) > 4 or not plan.is_coded(w.name):
            return None
        group = int(node.attrs.get("group", 1))
        tensors = {"x": x.name, "y": y.name}
        for role, position in (("bias", 2), ("residual", 3)):
            if named(node, position):
                tensors[role] = named(node, position)
        return [
            Step(
                "depthwise" if 1 < group == shape[-1] == out[-1] else "conv",
                tensors,
                {
                    "images": shape[0],
                    "in_c": shape[-1],
                    "out_c": out[-1],
                    **window_ints(window_of(node, len(shape) - 2, kernel[1:-1]), out[1:-1], shape[1:-1]),
                    "groups": group,
                    **activation_ints(act),
                },
                activation_floats(act),
                weights=w.name,
            )
        ]
