"""Operators that copy elements to other places. They take any dtype; copies go by element size.

Settings that ONNX passes as inputs (starts, ends, axes, steps, split, pads, repeats) are read from the attribute of that name or from the
input (see :meth:`.base.Op.setting`). DepthToSpace and SpaceToDepth are channels-last, [N, H, W, C]; all others keep the order of axes
they are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ..graph import Node, TensorSpec
from .base import OPERATORS, Alias, Lowering, Op, Step
from .checks import FLOAT, NativeOp, axes_of, axis_of, broadcast, extents, ints, known, known_values, need, outputs, wrong
from .strides import broadcast_strides, copy_step, dense_strides, is_whole, rows_and_cols

Values = Sequence[np.ndarray | None]


def moved(node: Node, plan: Lowering, dims: Sequence[int], strides: Sequence[int], start: int = 0) -> list[Step] | Alias | None:
    """Output 0, dense, is input 0 walked with these strides: an alias where that is the whole of it in order, else one copy."""
    x, y = plan.spec(node.inputs[0]), node.outputs[0]
    if start == 0 and prod(dims) == prod(extents(x)) and is_whole(dims, strides):
        return Alias(y, x.name)
    step = copy_step(x.name, y, x.dtype, dims, strides, dense_strides(dims), start)
    return None if step is None else [step]


@OPERATORS.register("Transpose")
class Transpose(NativeOp):
    """Axes in the order ``perm``, reversed where it is left out."""

    @staticmethod
    def _perm(node: Node, rank: int) -> list[int]:
        perm = ints(node.attrs.get("perm", list(range(rank))[::-1]))
        if sorted(perm) != list(range(rank)):
            raise wrong(node, f"perm of {rank} axes", perm)
        return perm

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Values) -> list[TensorSpec]:
        x = need(node, specs, 0, "data")
        shape = extents(x)
        return outputs(node, (x.dtype, [shape[a] for a in self._perm(node, len(shape))]))

    def run(self, node: Node, inputs: Values) -> list[np.ndarray]:
        x = need(node, inputs, 0, "data")
        return [x.transpose(self._perm(node, x.ndim))]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        shape = extents(plan.spec(node.inputs[0]))
        perm = self._perm(node, len(shape))
        strides = dense_strides(shape)
        return moved(node, plan, [shape[a] for a in perm], [strides[a] for a in perm])


@OPERATORS.register("Concat")
class Concat(NativeOp):
    """Inputs one after the other along ``axis``."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Values) -> list[TensorSpec]:
        given = [need(node, specs, i, "data") for i in range(max(1, len(node.inputs)))]
        shapes = [extents(s) for s in given]
        axis = axis_of(node, int(node.attrs.get("axis", 0)), len(shapes[0]))
        rest = {(*s[:axis], -1, *s[axis + 1 :]) for s in shapes}
        if len(rest) > 1 or len({s.dtype for s in given}) > 1:
            raise wrong(node, f"inputs of one dtype that differ along axis {axis} only", [(s.dtype, s.shape) for s in given])
        total = sum(s[axis] for s in shapes)
        return outputs(node, (given[0].dtype, (*shapes[0][:axis], total, *shapes[0][axis + 1 :])))

    def run(self, node: Node, inputs: Values) -> list[np.ndarray]:
        return [np.concatenate([need(node, inputs, i, "data") for i in range(len(node.inputs))], axis=int(node.attrs.get("axis", 0)))]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        y = plan.spec(node.outputs[0])
        shape = extents(y)
        if len(node.inputs) == 1:
            return Alias(y.name, node.inputs[0])
        axis = axis_of(node, int(node.attrs.get("axis", 0)), len(shape))
        inner = prod(shape[axis + 1 :])
        outer, wide = prod(shape[:axis]), shape[axis] * inner
        steps, to = [], 0
        for name in node.inputs:
            part = extents(plan.spec(name))
            step: Step | None
            if axis == len(shape) - 1 and y.dtype == FLOAT:
                step = Step("copy_rows", {"x": name, "y": y.name}, {**rows_and_cols(part), "to": to})
            else:
                step = copy_step(name, y.name, y.dtype, (outer, part[axis] * inner), (part[axis] * inner, 1), (wide, 1), 0, to)
            if step is None:
                return None
            steps.append(step)
            to += part[axis] * inner
        return steps


@OPERATORS.register("Split")
class Split(NativeOp):
    """Consecutive parts along ``axis`` (0): of the extents ``split``, or as equal as can be."""

    shape_inputs = (1,)

    def _parts(self, node: Node, shape: Sequence[int], values: Values) -> tuple[int, list[int]]:
        axis = axis_of(node, int(node.attrs.get("axis", 0)), len(shape))
        split = self.setting(node, "split", values, 1)
        if split is None:
            if len(node.inputs) > 1 and node.inputs[1]:
                known(node, split, "a split")
            count = len(node.outputs)
            size = -(-shape[axis] // count)
            split = [max(0, min(size, shape[axis] - i * size)) for i in range(count)]
        split = ints(split)
        if len(split) != len(node.outputs) or sum(split) != shape[axis] or min(split) < 0:
            raise wrong(node, f"{len(node.outputs)} parts that add up to {shape[axis]}", split)
        return axis, split

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Values) -> list[TensorSpec]:
        x = need(node, specs, 0, "input")
        shape = extents(x)
        axis, split = self._parts(node, shape, values)
        return outputs(node, *((x.dtype, (*shape[:axis], n, *shape[axis + 1 :])) for n in split))

    def run(self, node: Node, inputs: Values) -> list[np.ndarray]:
        x = need(node, inputs, 0, "input")
        axis, split = self._parts(node, x.shape, inputs)
        return np.split(x, np.cumsum(split)[:-1], axis=axis)

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        x = plan.spec(node.inputs[0])
        shape = extents(x)
        axis, split = self._parts(node, shape, known_values(node, plan, (1,)))
        if len(split) == 1:
            return Alias(node.outputs[0], x.name)
        inner = prod(shape[axis + 1 :])
        outer, wide = prod(shape[:axis]), shape[axis] * inner
        steps, start = [], 0
        for name, n in zip(node.outputs, split, strict=True):
            if name:
                step = copy_step(x.name, name, x.dtype, (outer, n * inner), (wide, 1), (n * inner, 1), start)
                if step is None:
                    return None
                steps.append(step)
            start += n * inner
        return steps


@OPERATORS.register("Pad")
class Pad(NativeOp):
    """``pads`` (begins then ends, of all axes or of ``axes``; negative ones crop); ``mode`` constant, reflect, edge or wrap.

    Inputs: data, pads, constant_value, axes. The constant may be the attribute ``value``.
    """

    shape_inputs = (1, 2, 3)

    def _pads(self, node: Node, shape: Sequence[int], values: Values) -> tuple[list[int], list[int]]:
        pads = ints(known(node, self.setting(node, "pads", values, 1), "padding"))
        axes = self.setting(node, "axes", values, 3)
        which = list(range(len(shape))) if axes is None else axes_of(node, ints(axes), len(shape))
        if len(pads) != 2 * len(which):
            raise wrong(node, f"{2 * len(which)} pads", pads)
        begins, ends = [0] * len(shape), [0] * len(shape)
        for i, axis in enumerate(which):
            begins[axis], ends[axis] = pads[i], pads[len(which) + i]
        mode = node.attrs.get("mode", "constant")
        if mode not in ("constant", "reflect", "edge", "wrap"):
            raise wrong(node, "mode constant, reflect, edge or wrap", mode)
        for n, b, e in zip(shape, begins, ends, strict=True):
            kept = n + min(0, b) + min(0, e)
            if kept < 0 or (mode != "constant" and max(b, e) > 0 and kept == 0):
                raise wrong(node, f"pads that leave something of {tuple(shape)}", pads)
        return begins, ends

    def _value(self, node: Node, values: Values) -> Any:
        value = self.setting(node, "value", values, 2, 0)
        return value[0] if isinstance(value, list) else value

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Values) -> list[TensorSpec]:
        x = need(node, specs, 0, "data")
        shape = extents(x)
        begins, ends = self._pads(node, shape, values)
        return outputs(node, (x.dtype, [n + b + e for n, b, e in zip(shape, begins, ends, strict=True)]))

    def run(self, node: Node, inputs: Values) -> list[np.ndarray]:
        x = need(node, inputs, 0, "data")
        begins, ends = self._pads(node, x.shape, inputs)
        x = x[tuple(slice(max(0, -b), n + min(0, e)) for n, b, e in zip(x.shape, begins, ends, strict=True))]
        widths = [(max(0, b), max(0, e)) for b, e in zip(begins, ends, strict=True)]
        mode = node.attrs.get("mode", "constant")
        if mode == "constant":
            return [np.pad(x, widths, constant_values=self._value(node, inputs))]
        return [np.pad(x, widths, mode=mode)]

    @staticmethod
    def _runs(mode: str, n: int, begin: int, end: int) -> list[tuple[int, int, int, int]] | None:
        """One axis as runs (first output, count, first input, input stride); None where a border is longer than what it repeats."""
        middle = (max(0, begin), n + min(0, begin) + min(0, end), max(0, -begin), 1)
        if mode == "constant" or (begin == 0 and end == 0):
            return [middle]
        limit = {"reflect": n - 1, "wrap": n, "edge": max(begin, end)}[mode]
        if min(begin, end) < 0 or max(begin, end) > limit:
            return None
        before = {"reflect": (begin, -1), "wrap": (n - begin, 1), "edge": (0, 0)}[mode]
        after = {"reflect": (n - 2, -1), "wrap": (0, 1), "edge": (n - 1, 0)}[mode]
        return [run for run in ((0, begin, *before), middle, (begin + n, end, *after)) if run[1]]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        x, y = plan.spec(node.inputs[0]), plan.spec(node.outputs[0])
        shape, out = extents(x), extents(y)
        values = known_values(node, plan, self.shape_inputs)
        begins, ends = self._pads(node, shape, values)
        mode = node.attrs.get("mode", "constant")
        steps: list[Step] = []
        if not any(begins) and not any(ends):
            return Alias(y.name, x.name)
        if mode == "constant" and max([*begins, *ends]) > 0:
            given = len(node.inputs) > 2 and bool(node.inputs[2])
            if x.dtype != FLOAT or (given and values[2] is None and "value" not in node.attrs):
                return None
            steps.append(Step("fill", {"y": y.name}, {"count": prod(out)}, {"value": float(self._value(node, values))}))
        axes = [self._runs(mode, n, b, e) for n, b, e in zip(shape, begins, ends, strict=True)]
        sx, sy = dense_strides(shape), dense_strides(out)
        pieces: list[list[tuple[int, int, int, int]]] = [[]]
        for runs in axes:
            if runs is None:
                return None
            pieces = [[*piece, run] for piece in pieces for run in runs]
        for piece in pieces:
            step = copy_step(
                x.name,
                y.name,
                x.dtype,
                [run[1] for run in piece],
                [run[3] * s for run, s in zip(piece, sx, strict=True)],
                sy,
                sum(run[2] * s for run, s in zip(piece, sx, strict=True)),
                sum(run[0] * s for run, s in zip(piece, sy, strict=True)),
            )
            if step is None:
                return None
            steps.append(step)
        return steps


@OPERATORS.register("Slice")
class Slice(NativeOp):
    """``starts``, ``ends``, ``axes``, ``steps``: inputs 1 to 4 or attributes; clamped and counted as in ONNX."""

    shape_inputs = (1, 2, 3, 4)

    def _ranges(self, node: Node, shape: Sequence[int], values: Values) -> list[tuple[int, int, int]]:
        """(start, count, step) of every axis."""
        starts = ints(known(node, self.setting(node, "starts", values, 1), "a start"))
        ends = ints(known(node, self.setting(node, "ends", values, 2), "an end"))
        axes, steps = self.setting(node, "axes", values, 3), self.setting(node, "steps", values, 4)
        which = axes_of(node, ints(axes) if axes is not None else list(range(len(starts))), len(shape))
        pace = ints(steps) if steps is not None else [1] * len(starts)
        if not len(starts) == len(ends) == len(which) == len(pace) or 0 in pace:
            raise wrong(node, "starts, ends, axes and steps (not 0) of one length", [starts, ends, axes, steps])
        found = [(0, n, 1) for n in shape]
        for axis, start, end, step in zip(which, starts, ends, pace, strict=True):
            covered = range(shape[axis])[slice(max(start, -shape[axis]), self._stop(end, shape[axis], step), step)]
            found[axis] = (covered.start, len(covered), step)
        return found

    @staticmethod
    def _stop(end: int, n: int, step: int) -> int | None:
        """``end`` as Python's slices have it: ONNX's smallest numbers mean "to the front" when going backwards."""
        return None if step < 0 and end < -n else end

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Values) -> list[TensorSpec]:
        x = need(node, specs, 0, "data")
        return outputs(node, (x.dtype, [count for _, count, _ in self._ranges(node, extents(x), values)]))

    def run(self, node: Node, inputs: Values) -> list[np.ndarray]:
        x = need(node, inputs, 0, "data")
        for axis, (start, count, step) in enumerate(self._ranges(node, x.shape, inputs)):
            if (start, count, step) != (0, x.shape[axis], 1):
                stop = start + count * step
                x = x[(slice(None),) * axis + (slice(start, None if stop < 0 else stop, step) if count else slice(0, 0),)]
        return [x]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        shape = extents(plan.spec(node.inputs[0]))
        ranges = self._ranges(node, shape, known_values(node, plan, self.shape_inputs))
        dense = dense_strides(shape)
        start = sum(first * s for (first, _, _), s in zip(ranges, dense, strict=True))
        return moved(node, plan, [n for _, n, _ in ranges], [step * s for (_, _, step), s in zip(ranges, dense, strict=True)], start)


@OPERATORS.register("Expand")
class Expand(NativeOp):
    """X broadcast with ``shape`` (input 1 or attribute), both ways."""

    shape_inputs = (1,)

    def _shape(self, node: Node, shape: tuple[int, ...], values: Values) -> tuple[int, ...]:
        return broadcast(node, shape, tuple(ints(known(node, self.setting(node, "shape", values, 1), "a shape"))))

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Values) -> list[TensorSpec]:
        x = need(node, specs, 0, "input")
        return outputs(node, (x.dtype, self._shape(node, extents(x), values)))

    def run(self, node: Node, inputs: Values) -> list[np.ndarray]:
        x = need(node, inputs, 0, "input")
        return [np.broadcast_to(x, self._shape(node, x.shape, inputs))]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        out = extents(plan.spec(node.outputs[0]))
        return moved(node, plan, out, broadcast_strides(extents(plan.spec(node.inputs[0])), out))


@OPERATORS.register("Tile")
class Tile(NativeOp):
    """X ``repeats`` times along each axis (input 1 or attribute)."""

    shape_inputs = (1,)

    def _repeats(self, node: Node, rank: int, values: Values) -> list[int]:
        repeats = ints(known(node, self.setting(node, "repeats", values, 1), "a number of repeats"))
        if len(repeats) != rank or min(repeats, default=0) < 0:
            raise wrong(node, f"{rank} repeats, none negative", repeats)
        return repeats

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Values) -> list[TensorSpec]:
        x = need(node, specs, 0, "input")
        shape = extents(x)
        return outputs(node, (x.dtype, [n * r for n, r in zip(shape, self._repeats(node, len(shape), values), strict=True)]))

    def run(self, node: Node, inputs: Values) -> list[np.ndarray]:
        x = need(node, inputs, 0, "input")
        return [np.tile(x, self._repeats(node, x.ndim, inputs))]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        shape = extents(plan.spec(node.inputs[0]))
        repeats = self._repeats(node, len(shape), known_values(node, plan, (1,)))
        dims = [n for pair in zip(repeats, shape, strict=True) for n in pair]
        return moved(node, plan, dims, [s for dense in dense_strides(shape) for s in (0, dense)])


@OPERATORS.register("DepthToSpace", "SpaceToDepth")
class Blocks(NativeOp):
    """[N, H, W, C]: channels to blocks of ``blocksize`` x ``blocksize`` pixels and back.

    A channel counts depth and column-row within the block: the block outermost (``mode`` DCR) or innermost (CRD).
    """

    channels_last = True

    @staticmethod
    def _split(node: Node, shape: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
        """(shape to split the input into, order of its axes in the output, output shape)."""
        size = int(node.attrs.get("blocksize", 0))
        if len(shape) != 4 or size < 1:
            raise wrong(node, "X [N, H, W, C] and blocksize of at least 1", f"{shape}, {size}")
        n, h, w, c = shape
        if node.op == "SpaceToDepth":
            if h % size or w % size:
                raise wrong(node, f"H and W that are multiples of {size}", shape)
            order = [0, 1, 3, 5, 2, 4] if node.attrs.get("mode", "DCR") == "CRD" else [0, 1, 3, 2, 4, 5]
            return [n, h // size, size, w // size, size, c], order, [n, h // size, w // size, c * size * size]
        if c % (size * size):
            raise wrong(node, f"C that is a multiple of {size * size}", shape)
        out = [n, h * size, w * size, c // (size * size)]
        if node.attrs.get("mode", "DCR") == "CRD":
            return [n, h, w, out[3], size, size], [0, 1, 4, 2, 5, 3], out
        return [n, h, w, size, size, out[3]], [0, 1, 3, 2, 4, 5], out

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Values) -> list[TensorSpec]:
        x = need(node, specs, 0, "input")
        return outputs(node, (x.dtype, self._split(node, extents(x))[2]))

    def run(self, node: Node, inputs: Values) -> list[np.ndarray]:
        x = need(node, inputs, 0, "input")
        split, order, out = self._split(node, x.shape)
        return [x.reshape(split).transpose(order).reshape(out)]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        split, order, _ = self._split(node, extents(plan.spec(node.inputs[0])))
        strides = dense_strides(split)
        return moved(node, plan, [split[a] for a in order], [strides[a] for a in order])


@OPERATORS.register("Trilu")
class Trilu(Op):
    """The ``upper`` (1) or lower triangle of the last two axes, shifted by k (input 1 or attribute)."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Values) -> list[TensorSpec]:
        x = need(node, specs, 0, "input")
        if len(x.shape) < 2:
            raise wrong(node, "input of rank 2 or more", x.shape)
        return outputs(node, (x.dtype, extents(x)))

    def run(self, node: Node, inputs: Values) -> list[np.ndarray]:
        x = need(node, inputs, 0, "input")
        k = ints(self.setting(node, "k", inputs, 1, 0))[0]
        return [np.triu(x, k) if node.attrs.get("upper", 1) else np.tril(x, k)]
