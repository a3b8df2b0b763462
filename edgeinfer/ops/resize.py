"""Resize, channels-last: X [N, spatial..., C], ``mode`` nearest or linear.

``scales`` or ``sizes`` (attribute, or inputs 2 and 3; ``roi`` input 1) name every axis in the tensor's own order [N, spatial..., C], or the
axes in the attribute ``axes``: the importer has permuted them. Source coordinates are computed in float32, as onnxruntime does: the
rounding decides which pixel is nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..graph import Node, TensorSpec
from .base import OPERATORS, Alias, Lowering, Step
from .checks import FLOAT, NativeOp, axes_of, extents, ints, known, known_values, named, need, outputs, unsupported, wrong

F = np.float32
COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn", "tf_crop_and_resize"
)  # fmt: skip


class Axis(NamedTuple):
    """One axis to be resized: where every output pixel comes from, as a mix of two input pixels, and which ones lie outside."""

    low: np.ndarray
    high: np.ndarray
    mix: np.ndarray
    outside: np.ndarray | None


def coordinates(mode: str, n: int, out: int, scale: np.float32, start: float, end: float) -> np.ndarray:
    """Where in the input (pixel centres at whole numbers) each of ``out`` pixels lies; float32."""
    x = np.arange(out, dtype=F)
    if mode == "asymmetric":
        return x / scale
    if mode == "tf_half_pixel_for_nn":
        return (x + F(0.5)) / scale
    if mode == "align_corners":
        return x * F(n - 1) / F(out - 1) if out > 1 else np.zeros(out, F)
    if mode == "pytorch_half_pixel" and out <= 1:
        return np.zeros(out, F)
    if mode == "tf_crop_and_resize":
        if out > 1:
            return F(start) * F(n - 1) + x * F(end - start) * F(n - 1) / F(out - 1)
        return np.full(out, 0.5 * (start + end) * (n - 1), F)
    half = (x + F(0.5)) / scale - F(0.5)
    if mode == "half_pixel_symmetric":
        half = half + F(n / 2) * (F(1) - F(out) / (scale * F(n)))
    return half


def nearest(at: np.ndarray, mode: str) -> np.ndarray:
    """Coordinates rounded to whole pixels."""
    if mode == "floor":
        return np.floor(at)
    if mode == "ceil":
        return np.ceil(at)
    if mode == "round_prefer_ceil":
        return np.floor(at + F(0.5))
    return np.ceil(at - F(0.5))


@OPERATORS.register("Resize")
class Resize(NativeOp):
    """Nearest or linear interpolation along any axes; native where only height and width change."""

    channels_last = True
    shape_inputs = (1, 2, 3)

    def _targets(
        self, node: Node, shape: tuple[int, ...], values: Sequence[np.ndarray | None]
    ) -> tuple[list[int], list[np.float32], list[tuple[float, float]]]:
        """Output extents, scales, and regions of interest, one per axis."""
        rank = len(shape)
        axes = axes_of(node, ints(node.attrs["axes"]), rank) if "axes" in node.attrs else list(range(rank))
        scales, sizes = self.setting(node, "scales", values, 2), self.setting(node, "sizes", values, 3)
        roi = self.setting(node, "roi", values, 1)
        if not scales and not sizes:
            if named(node, 2) or named(node, 3):
                known(node, None, "a size")
            raise wrong(node, "scales or sizes", "none")
        out, factors, regions = list(shape), [F(1)] * rank, [(0.0, 1.0)] * rank
        if len(sizes or scales) != len(axes) or (roi and len(roi) not in (0, 2 * len(axes))):
            raise wrong(node, f"one scale or size for each of {len(axes)} axes", sizes or scales)
        if sizes:
            want = ints(sizes)
            policy = node.attrs.get("keep_aspect_ratio_policy", "stretch")
            if policy != "stretch":
                ratios = [want[i] / shape[a] for i, a in enumerate(axes)]
                ratio = min(ratios) if policy == "not_larger" else max(ratios)
                want = [int(np.floor(ratio * shape[a] + 0.5)) for a in axes]
            for i, a in enumerate(axes):
                out[a] = want[i]
                factors[a] = F(ratio) if policy != "stretch" else F(want[i]) / F(max(1, shape[a]))
        else:
            for i, a in enumerate(axes):
                factors[a] = F(scales[i])
                out[a] = int(np.floor(shape[a] * float(factors[a])))
        if min(out, default=0) < 0 or min(factors, default=F(1)) <= 0:
            raise wrong(node, "scales above 0", [float(f) for f in factors])
        if roi:
            for i, a in enumerate(axes):
                regions[a] = (float(roi[i]), float(roi[i + len(axes)]))
        return out, factors, regions

    @staticmethod
    def _check(node: Node) -> tuple[str, str]:
        mode, coordinate = node.attrs.get("mode", "nearest"), node.attrs.get("coordinate_transformation_mode", "half_pixel")
        if mode not in ("nearest", "linear"):
            raise unsupported(node, f"mode {mode!r}")
        if coordinate not in COORDINATES:
            raise unsupported(node, f"coordinate_transformation_mode {coordinate!r}")
        if node.attrs.get("antialias", 0):
            raise unsupported(node, "antialias")
        if node.attrs.get("nearest_mode", "round_prefer_floor") not in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
            raise wrong(node, "a nearest_mode of ONNX", node.attrs["nearest_mode"])
        return mode, coordinate

    def _axes(self, node: Node, shape: tuple[int, ...], values: Sequence[np.ndarray | None]) -> dict[int, Axis]:
        """The axes along which something happens."""
        mode, coordinate = self._check(node)
        found = {}
        for axis, (n, out, scale, region) in enumerate(zip(shape, *self._targets(node, shape, values), strict=True)):
            crop = coordinate == "tf_crop_and_resize"
            if n == out and scale == 1 and not (crop and region != (0.0, 1.0)):
                continue
            at = coordinates(coordinate, n, out, scale, *region)
            outside = (at < 0) | (at > n - 1) if crop else None
            if mode == "nearest":
                low = np.clip(nearest(at, node.attrs.get("nearest_mode", "round_prefer_floor")), 0, n - 1).astype(np.int32)
                found[axis] = Axis(low, low, np.zeros(out, F), outside)
            else:
                at = np.clip(at, 0, n - 1)
                low = np.floor(at).astype(np.int32)
                found[axis] = Axis(low, np.minimum(low + 1, n - 1).astype(np.int32), (at - low).astype(F), outside)
        return found

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        x = need(node, specs, 0, "X")
        self._check(node)
        shape = extents(x)
        out, _, _ = self._targets(node, shape, values)
        if 0 in shape and np.prod(out):
            raise wrong(node, "pixels to resize", shape)
        return outputs(node, (x.dtype, out))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        x = need(node, inputs, 0, "X")
        y = x
        axes = self._axes(node, x.shape, inputs)
        for axis, source in axes.items():
            first = np.take(y, source.low, axis=axis)
            if source.mix.any():
                weight = source.mix.reshape(-1, *[1] * (y.ndim - 1 - axis))
                first = first * (1 - weight) + np.take(y, source.high, axis=axis) * weight
            y = first
        for axis, source in axes.items():
            if source.outside is not None and source.outside.any():
                y[(slice(None),) * axis + (source.outside,)] = node.attrs.get("extrapolation_value", 0.0)
        return [y.astype(x.dtype, copy=False)]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        x, y = plan.spec(node.inputs[0]), plan.spec(node.outputs[0])
        shape, out = extents(x), extents(y)
        axes = self._axes(node, shape, known_values(node, plan, self.shape_inputs))
        if not axes:
            return Alias(y.name, x.name)
        rank = len(shape)
        if x.dtype != FLOAT or rank not in (3, 4) or not axes.keys() <= {rank - 3, rank - 2} - {0}:
            return None
        if any(a.outside is not None and a.outside.any() for a in axes.values()):
            return None
        tensors = {"x": x.name, "y": y.name}
        for role, axis in (("row", rank - 3), ("col", rank - 2)):
            n = shape[axis] if axis else 1
            same = np.arange(n, dtype=np.int32)
            source = axes.get(axis, Axis(same, same, np.zeros(n, F), None))
            for name, array in ((f"{role}0", source.low), (f"{role}1", source.high), (f"{role}_mix", source.mix)):
                tensors[name] = plan.literal(np.ascontiguousarray(array))
        spatial = {"in_h": shape[-3] if rank == 4 else 1, "in_w": shape[-2], "out_h": out[-3] if rank == 4 else 1, "out_w": out[-2]}
        return [Step("resize", tensors, {"images": shape[0], "channels": shape[-1], **spatial})]
