"""Nodes that contradict themselves say so by name; empty tensors are no contradiction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeinfer.errors import InputError, ModelFormatError, UnsupportedModelError
from edgeinfer.graph import Node, TensorSpec
from edgeinfer.ops import OPERATORS

F = "float32"


def spec(*shape: int, dtype: str = F) -> TensorSpec:
    return TensorSpec("t", dtype, shape)


def infer(op: str, *specs: TensorSpec | None, outputs: int = 1, values: Any = (), **attrs: Any) -> list[TensorSpec]:
    names = tuple("" if s is None else f"i{k}" for k, s in enumerate(specs))
    node = Node(op, "here", names, tuple(f"o{k}" for k in range(outputs)), attrs)
    return OPERATORS[op]().infer(node, specs, list(values) or [None] * len(specs))


WRONG: list[tuple[Any, ...]] = [
    ("Relu", {}),
    ("Relu", {}, None),
    ("Conv", {}, spec(1, 8, 8, 3), spec(4, 3, 3, 2)),
    ("Conv", {}, spec(1, 8, 8, 3), spec(4, 3, 3)),
    ("Conv", {"group": 2}, spec(1, 8, 8, 4), spec(3, 3, 3, 2)),
    ("Conv", {}, spec(1, 2, 2, 3), spec(4, 3, 3, 3)),
    ("Conv", {"strides": [1]}, spec(1, 8, 8, 3), spec(4, 3, 3, 3)),
    ("Conv", {"strides": [0, 1]}, spec(1, 8, 8, 3), spec(4, 3, 3, 3)),
    ("Conv", {"kernel_shape": [2, 2]}, spec(1, 8, 8, 3), spec(4, 3, 3, 3)),
    ("Conv", {}, spec(1, 8, 8, 3), spec(4, 3, 3, 3), spec(3)),
    ("Conv", {}, spec(1, 8, 8, 3), spec(4, 3, 3, 3), spec(4), spec(1, 8, 8, 4)),
    ("Gemm", {}, spec(2, 3), spec(4, 2)),
    ("Gemm", {}, spec(2, 3), spec(4, 3), spec(3)),
    ("MatMul", {}, spec(2, 3), spec(2, 3)),
    ("MatMul", {}, spec(2, 2, 3), spec(3, 3, 3)),
    ("Einsum", {"equation": "ij,jk"}, spec(2, 3), spec(2, 3)),
    ("Einsum", {"equation": "ij->k"}, spec(2, 3)),
    ("MaxPool", {}, spec(1, 4, 4, 2)),
    ("MaxPool", {"kernel_shape": [5, 5]}, spec(1, 4, 4, 2)),
    ("AveragePool", {"kernel_shape": [2]}, spec(1, 4, 4, 2)),
    ("GlobalMaxPool", {}, spec(1, 0, 4, 2)),
    ("BatchNormalization", {}, spec(1, 4, 4, 2), spec(4), spec(4)),
    ("LRN", {}, spec(1, 4, 4, 2)),
    ("LayerNormalization", {}, spec(1, 4), spec(3)),
    ("LayerNormalization", {"axis": 2}, spec(1, 4), spec(4)),
    ("Softmax", {"axis": 3}, spec(1, 4)),
    ("Add", {}, spec(2, 3), spec(4, 3)),
    ("Add", {}, spec(2, 3), spec(2, 3, dtype="int64")),
    ("Where", {}, spec(2), spec(2), spec(2)),
    ("PRelu", {}, spec(2), spec(3, 2)),
    ("Reshape", {"shape": [4, -1]}, spec(2, 3)),
    ("Reshape", {"shape": [-1, -1]}, spec(2, 3)),
    ("Reshape", {"shape": [7]}, spec(2, 3)),
    ("Reshape", {"shape": [0, 0, 0]}, spec(2, 3)),
    ("Squeeze", {"axes": [0]}, spec(2, 3)),
    ("Unsqueeze", {"axes": [0, 0]}, spec(2, 3)),
    ("Flatten", {"axis": 3}, spec(2, 3)),
    ("Transpose", {"perm": [0, 0]}, spec(2, 3)),
    ("Concat", {"axis": 0}, spec(2, 3), spec(2, 4)),
    ("Concat", {"axis": 0}, spec(2, 3), spec(2, 3, dtype="int32")),
    ("Split", {"split": [3]}, spec(2, 3)),
    ("Pad", {"pads": [1, 1, 1]}, spec(2, 3)),
    ("Pad", {"pads": [-2, 0, -1, 0]}, spec(2, 3)),
    ("Pad", {"pads": [1, 1, 1, 1], "mode": "mirror"}, spec(2, 3)),
    ("Slice", {"starts": [0], "ends": [1, 2]}, spec(2, 3)),
    ("Slice", {"starts": [0], "ends": [1], "steps": [0]}, spec(2, 3)),
    ("Expand", {"shape": [4]}, spec(2, 3)),
    ("Tile", {"repeats": [4]}, spec(2, 3)),
    ("Gather", {"axis": 2}, spec(2, 3), spec(1, dtype="int64")),
    ("Gather", {}, spec(2, 3), spec(1)),
    ("GatherND", {}, spec(2, 3), spec(1, 3, dtype="int64")),
    ("Cast", {"to": "decimal"}, spec(2)),
    ("Cast", {}, spec(2)),
    ("DepthToSpace", {"blocksize": 2}, spec(1, 2, 2, 6)),
    ("SpaceToDepth", {"blocksize": 2}, spec(1, 3, 2, 6)),
    ("ReduceSum", {"axes": [2]}, spec(2, 3)),
    ("ArgMax", {}, spec(0, 3)),
    ("TopK", {"k": 4}, spec(2, 3), None),
    ("Resize", {}, spec(1, 4, 4, 2)),
    ("Resize", {"scales": [1.0, 2.0]}, spec(1, 4, 4, 2)),
    ("Resize", {"scales": [1.0, -2.0, 1.0, 1.0]}, spec(1, 4, 4, 2)),
    ("GRU", {}, spec(3, 1, 4), spec(6, 4), spec(6, 3)),
    ("LSTM", {}, spec(3, 1, 4), spec(8, 4), spec(8, 2), spec(6)),
]


@pytest.mark.parametrize("case", WRONG, ids=lambda c: f"{c[0]}-{c[1]}")
def test_contradictions_name_the_node(case: tuple[Any, ...]) -> None:
    op, attrs, *specs = case
    with pytest.raises(ModelFormatError, match=rf"^{op} node 'here': expected .+, found ") as caught:
        infer(op, *specs, **attrs)
    assert not isinstance(caught.value, UnsupportedModelError)


UNSUPPORTED: list[tuple[Any, ...]] = [
    ("MaxPool", {"kernel_shape": [2, 2], "outputs": 2}, spec(1, 4, 4, 2)),
    ("MaxPool", {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}, spec(1, 4, 4, 2)),
    ("Resize", {"scales": [1.0, 2.0, 2.0, 1.0], "mode": "cubic"}, spec(1, 4, 4, 2)),
    ("Resize", {"scales": [1.0, 0.5, 0.5, 1.0], "mode": "linear", "antialias": 1}, spec(1, 4, 4, 2)),
    ("Resize", {}, spec(1, 4, 4, 2), None, None, spec(4, dtype="int64")),
    ("Reshape", {}, spec(2, 3), spec(2, dtype="int64")),
    ("ReduceSum", {}, spec(2, 3), spec(1, dtype="int64")),
    ("Range", {}, spec(), spec(), spec()),
    ("GRU", {"direction": "bidirectional"}, spec(3, 1, 4), spec(6, 4), spec(6, 2)),
    ("LSTM", {"activations": ["Relu", "Tanh", "Tanh"]}, spec(3, 1, 4), spec(8, 4), spec(8, 2)),
    ("LSTM", {"clip": 3.0}, spec(3, 1, 4), spec(8, 4), spec(8, 2)),
    ("ScatterND", {"reduction": "median"}, spec(4, 5), spec(1, 1, dtype="int64"), spec(1, 5)),
]


@pytest.mark.parametrize("case", UNSUPPORTED, ids=lambda c: f"{c[0]}-{c[1]}")
def test_what_is_not_supported_is_said(case: tuple[Any, ...]) -> None:
    op, attrs, *specs = case
    with pytest.raises(UnsupportedModelError, match=f"^{op} node 'here': .+ is not supported$"):
        infer(op, *specs, **attrs)


def test_an_index_outside_is_an_error_of_the_input() -> None:
    node = Node("Gather", "here", ("x", "i"), ("y",), {})
    with pytest.raises(InputError, match=r"expected indices in \[-3, 3\), found -1 to 3"):
        OPERATORS["Gather"]().run(node, [np.zeros((3, 2), np.float32), np.array([-1, 3])])


def test_a_symbol_is_not_a_shape() -> None:
    with pytest.raises(ModelFormatError, match="concrete shape"):
        infer("Relu", TensorSpec("t", F, ("N", 3)))


EMPTY: list[tuple[Any, ...]] = [
    ("Relu", {}, (0, 3), (0, 3)),
    ("Add", {}, (0, 3), (0, 3), (1, 3)),
    ("Conv", {}, (0, 4, 4, 2), (0, 4, 4, 3), (3, 1, 1, 2)),
    ("Gemm", {}, (0, 4), (0, 3), (3, 4)),
    ("MatMul", {}, (2, 0), (2, 3), (0, 3)),
    ("MatMul", {}, (0, 2, 4), (0, 2, 3), (4, 3)),
    ("MaxPool", {"kernel_shape": [2, 2]}, (0, 4, 4, 2), (0, 3, 3, 2)),
    ("AveragePool", {"kernel_shape": [2, 2]}, (0, 4, 4, 2), (0, 3, 3, 2)),
    ("GlobalAveragePool", {}, (0, 4, 4, 2), (0, 1, 1, 2)),
    ("BatchNormalization", {}, (0, 4, 4, 2), (0, 4, 4, 2), (2,), (2,)),
    ("LRN", {"size": 3}, (0, 4, 4, 2), (0, 4, 4, 2)),
    ("LayerNormalization", {}, (0, 4), (0, 4), (4,)),
    ("Softmax", {}, (0, 4), (0, 4)),
    ("Softmax", {}, (4, 0), (4, 0)),
    ("Hardmax", {}, (0, 4), (0, 4)),
    ("Reshape", {"shape": [0, 12]}, (0, 3, 4), (0, 12)),
    ("Transpose", {}, (0, 3), (3, 0)),
    ("Concat", {"axis": 0}, (0, 3), (2, 3), (2, 3)),
    ("Pad", {"pads": [1, 0, 1, 0]}, (0, 3), (2, 3)),
    ("Slice", {"starts": [5], "ends": [1]}, (3, 2), (0, 2)),
    ("Expand", {"shape": [2, 0, 3]}, (1, 3), (2, 0, 3)),
    ("Tile", {"repeats": [0, 2]}, (2, 3), (0, 6)),
    ("ReduceSum", {"axes": [0]}, (0, 3), (1, 3)),
    ("ReduceMax", {"axes": [1]}, (0, 3), (0, 1)),
    ("ArgMax", {"axis": 1}, (0, 3), (0, 1)),
    ("CumSum", {"axis": 0}, (0, 3), (0, 3)),
    ("TopK", {"k": 2}, (0, 3), (0, 2)),
    ("Resize", {"scales": [1.0, 2.0, 2.0, 1.0]}, (0, 2, 2, 3), (0, 4, 4, 3)),
    ("DepthToSpace", {"blocksize": 2}, (0, 2, 2, 4), (0, 4, 4, 1)),
    ("GRU", {}, (3, 0, 4), (3, 1, 0, 2), (6, 4), (6, 2)),
    ("LSTM", {}, (3, 0, 4), (3, 1, 0, 2), (8, 4), (8, 2)),
]


@pytest.mark.parametrize("case", EMPTY, ids=lambda c: f"{c[0]}-{c[2]}")
def test_empty_tensors(case: tuple[Any, ...]) -> None:
    op, attrs, first, wanted, *rest = case
    arrays = [np.ones(shape, np.float32) for shape in (first, *rest)]
    node = Node(op, "here", tuple(f"i{k}" for k in range(len(arrays))), ("o0",), attrs)
    specs = [spec(*a.shape) for a in arrays]
    assert OPERATORS[op]().infer(node, specs, [None] * len(specs))[0].shape == wanted
    assert OPERATORS[op]().run(node, arrays)[0].shape == wanted
