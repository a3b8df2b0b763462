"""Operators that move or describe elements without arithmetic. They take any dtype; copies go by element size.

Settings that ONNX passes as inputs (shape, axes, starts, ends, steps, split, pads, repeats) are read from the attribute of that name or
from the input (see :meth:`.base.Op.setting`). Dtypes in attributes (``Cast.to``, ``ConstantOfShape.dtype``) are NumPy names;
``ConstantOfShape.value`` is a number. DepthToSpace and SpaceToDepth are channels-last, [N, H, W, C]; all others keep the order of axes
they are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ..errors import InputError
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


@OPERATORS.register("DepthToSpace", "SpaceToDepth")
class Blocks(NativeOp):
    """[N, H, W, C]: channels to blocks of ``blocksize`` x ``blocksize`` pixels (``mode`` DCR or CRD) and back (DCR only)."""

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
            return [n, h // size, size, w // size, size, c], [0, 1, 3, 2, 4, 5], [n, h // size, w // size, c * size * size]
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
