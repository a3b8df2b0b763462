"""Products of matrices: Gemm with a constant matrix, MatMul of two activations, Einsum.

Gemm: X [..., K], W [M, K], B [M] (or anything that broadcasts to Y), residual like Y -> Y [..., M] = act(X W^T + B + residual).
MatMul: alpha * A B by NumPy's rules for any ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ..graph import Node, TensorSpec
from .activations import Native, activate, activation_floats, activation_ints, native_activation, unary_step
from .arithmetic import binary_step
from .base import OPERATORS, Alias, Lowering, Op, Step
from .checks import FLOAT, NativeOp, all_float, broadcast, extents, named, need, optional, outputs, wrong
from .strides import broadcast_strides, dense_strides, merge

ONE_PIXEL = {
    **{name: 1 for name in ("in_h", "in_w", "out_h", "out_w", "kh", "kw", "stride_h", "stride_w", "dilation_h", "dilation_w", "groups")},
    "pad_top": 0,
    "pad_left": 0,
}


def product_step(
    x: str, weights: str, y: str, sizes: tuple[int, int, int], act: Native, bias: str = "", residual: str = "", y_ld: int | None = None
) -> Step:
    """A product with a coded matrix as a convolution of one tap over ``sizes`` = (rows, inputs, outputs).

    ``y_ld`` is given only where y is a workspace, whose rows the planner cannot know.
    """
    rows, in_c, out_c = sizes
    tensors = {"x": x, "y": y}
    if bias:
        tensors["bias"] = bias
    if residual:
        tensors["residual"] = residual
    fields = {"images": rows, "in_c": in_c, "out_c": out_c, **ONE_PIXEL, **activation_ints(act)}
    if y_ld is not None:
        fields["y_ld"] = y_ld
    return Step("conv", tensors, fields, activation_floats(act), weights=weights)


@OPERATORS.register("Gemm")
class Gemm(NativeOp):
    """Product with a matrix stored by output rows. Native with a coded W, and with a plain or computed W as ``matmul``."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        x, w = need(node, specs, 0, "X"), need(node, specs, 1, "W")
        shape, matrix = extents(x), extents(w)
        if not shape or len(matrix) != 2 or shape[-1] != matrix[1]:
            raise wrong(node, "X [..., K] and W [M, K]", f"{shape} and {matrix}")
        y = (*shape[:-1], matrix[0])
        for position, role in ((2, "B"), (3, "residual")):
            addend = optional(specs, position)
            if addend is not None and broadcast(node, y, extents(addend)) != y:
                raise wrong(node, f"{role} that broadcasts to {y}", addend.shape)
        return outputs(node, (x.dtype, y))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        x, w = need(node, inputs, 0, "X"), need(node, inputs, 1, "W")
        y = (x.reshape(prod(x.shape[:-1]), x.shape[-1]) @ w.T).reshape(*x.shape[:-1], w.shape[0])
        for addend in (optional(inputs, 2), optional(inputs, 3)):
            if addend is not None:
                y = y + addend
        return [activate(node, y.astype(x.dtype, copy=False))]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        x, w, y = plan.spec(node.inputs[0]), plan.spec(node.inputs[1]), plan.spec(node.outputs[0])
        act = native_activation(node)
        if act is None or x.dtype != FLOAT:
            return None
        (m, k), out = extents(w), extents(y)
        rows = prod(out[:-1])
        bias, residual = named(node, 2), named(node, 3)
        if plan.is_coded(w.name):
            fused_bias = bias if bias and extents(plan.spec(bias)) == (m,) else ""
            fused_residual = residual if residual and extents(plan.spec(residual)) == out else ""
            left = [t for t in (bias, residual) if t and t not in (fused_bias, fused_residual)]
            product = product_step(x.name, w.name, y.name, (rows, k, m), Native("none") if left else act, fused_bias, fused_residual)
        elif w.dtype != FLOAT:
            return None
        else:
            left = [t for t in (bias, residual) if t]
            product = Step(
                "matmul",
                {"a": x.name, "b": w.name, "y": y.name},
                {"b0": 1, "b1": 1, "m": rows, "n": m, "k": k, "a_m": k, "b_k": 1, "b_n": k, "y_m": m}
                | dict.fromkeys(("a_b0", "a_b1", "b_b0", "b_b1", "y_b0", "y_b1"), 0),
                {"alpha": 1.0},
            )
            if not left and act.name != "none":
                return [product, unary_step(plan, y.name, y.name, act)]
        steps = [product]
        for i, addend in enumerate(left, 1):
            step = binary_step(plan, "add", y.name, addend, y.name, act if i == len(left) else None)
            if step is None:
                return None
            steps.append(step)
        return steps


@OPERATORS.register("Einsum")
class Einsum(Op):
    """Sum of products that ``equation`` spells out, as in NumPy."""

    @staticmethod
    def _shape(node: Node, shapes: Sequence[tuple[int, ...]]) -> list[int]:
        left, arrow, right = str(node.attrs.get("equation", "")).replace(" ", "").partition("->")
        terms = left.split(",")
        bad = wrong(node, "an equation for these shapes", f"{node.attrs.get('equation')!r} and {list(shapes)}")
        if len(terms) != len(shapes):
            raise bad
        sizes: dict[str, int] = {}
        rest: tuple[int, ...] = ()
        for term, shape in zip(terms, shapes, strict=True):
            before, dots, after = term.partition("...")
            if len(before) + len(after) > len(shape) or (not dots and len(before) != len(shape)):
                raise bad
            middle = len(shape) - len(after)
            rest = broadcast(node, rest, shape[len(before) : middle])
            for letter, n in zip(before + after, (*shape[: len(before)], *shape[middle:]), strict=True):
                if sizes.setdefault(letter, n) != n:
                    if 1 not in (n, sizes[letter]):
                        raise bad
                    sizes[letter] = max(n, sizes[letter])
        if not arrow:
            right = ("..." if "..." in left else "") + "".join(sorted(c for c in sizes if left.count(c) == 1))
        before, dots, after = right.partition("...")
        if not set(before + after) <= set(sizes):
            raise bad
        return [*(sizes[c] for c in before), *(rest if dots else ()), *(sizes[c] for c in after)]

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        given = [need(node, specs, i, "data") for i in range(max(1, len(node.inputs)))]
        return outputs(node, (given[0].dtype, self._shape(node, [extents(s) for s in given])))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        given = [need(node, inputs, i, "data") for i in range(len(node.inputs))]
        return [np.asarray(np.einsum(str(node.attrs["equation"]), *given, optimize=len(given) > 1), dtype=given[0].dtype)]


@OPERATORS.register("MatMul")
class MatMul(NativeOp):
    """Product of two activations, times ``alpha``."""

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        first, second = need(node, specs, 0, "A"), need(node, specs, 1, "B")
        a, b = extents(first), extents(second)
        if not a or not b or a[-1] != b[-2 if len(b) > 1 else -1]:
            raise wrong(node, "A [..., m, k] and B [..., k, n]", f"{a} and {b}")
        lead = broadcast(node, a[:-2], b[:-2])
        return outputs(node, (first.dtype, (*lead, *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))))

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        a, b = need(node, inputs, 0, "A"), need(node, inputs, 1, "B")
        y = np.asarray(np.matmul(a, b))
        alpha = node.attrs.get("alpha", 1.0)
        return [y if alpha == 1.0 else np.asarray(y * alpha, dtype=y.dtype)]

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        if not all_float(node, plan):
            return None
        a, b = extents(plan.spec(node.inputs[0])), extents(plan.spec(node.inputs[1]))
        a = a if len(a) > 1 else (1, *a)
        b = b if len(b) > 1 else (*b, 1)
        m, k, n = a[-2], a[-1], b[-1]
        if all(d == 1 for d in b[:-2]):
            # one matrix for all of A: its leading axes are rows
            a, m = (m * prod(a[:-2]), k), m * prod(a[:-2])
            b = b[-2:]
        lead = np.broadcast_shapes(a[:-2], b[:-2])
        dims, walks = merge(
            lead,
            [s * m * k for s in broadcast_strides(a[:-2], lead)],
            [s * k * n for s in broadcast_strides(b[:-2], lead)],
            [s * m * n for s in dense_strides(lead)],
        )
        if len(dims) > 2:
            return None
        (b0, b1), (a_b, b_b, y_b) = [1] * (2 - len(dims)) + dims, [[0] * (2 - len(w)) + w for w in walks]
        return [
            Step(
                "matmul",
                {"a": node.inputs[0], "b": node.inputs[1], "y": node.outputs[0]},
                {"b0": b0, "b1": b1, "m": m, "n": n, "k": k, "a_m": k, "b_k": n, "b_n": 1, "y_m": n}
                | {"a_b0": a_b[0], "a_b1": a_b[1], "b_b0": b_b[0], "b_b1": b_b[1], "y_b0": y_b[0], "y_b1": y_b[1]},
                {"alpha": float(node.attrs.get("alpha", 1.0))},
            )
        ]
