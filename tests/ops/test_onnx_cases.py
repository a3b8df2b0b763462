"""The ``onnx`` package's own cases for single operators, a second opinion on the NumPy forms."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from edgeinfer.errors import UnsupportedModelError
from edgeinfer.graph import Node, TensorSpec
from edgeinfer.ops import OPERATORS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    ALL = collect_testcases(None)

#: operators whose form here is another one; test_registry.py compares them
OTHER_FORM = {"Gemm", "BatchNormalization", "GRU", "LSTM", "Identity"}
#: cases that onnxruntime and edgeinfer answer otherwise, with the reason
DISPUTED = {
    "test_resize_downsample_scales_linear_align_corners": "the case divides by the unrounded output size",
    "test_averagepool_2d_ceil_last_window_starts_on_pad": "the expected values are rounded to four digits",
}


def attributes(proto: Any) -> dict[str, Any]:
    """ONNX attributes as edgeinfer has them."""
    attrs = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
    attrs = {k: v.decode() if isinstance(v, bytes) else v for k, v in attrs.items()}
    if "to" in attrs:
        attrs["to"] = helper.tensor_dtype_to_np_dtype(attrs["to"]).name
    if "value" in attrs:
        value = numpy_helper.to_array(attrs["value"])
        attrs |= {"value": value.item(), "dtype": value.dtype.name}
    return attrs


def is_plain(array: Any) -> bool:
    """A tensor of a dtype that NumPy has itself."""
    return isinstance(array, (np.ndarray, np.generic)) and array.dtype.kind in "fiub" and array.dtype.isbuiltin == 1


def fits(test: Any) -> bool:
    """One node of an operator that edgeinfer has in ONNX's form, on tensors of usual dtypes."""
    if test.model is None or len(test.model.graph.node) != 1:
        return False
    node = test.model.graph.node[0]
    return (
        node.domain in ("", "ai.onnx")
        and node.op_type in OPERATORS
        and node.op_type not in OTHER_FORM
        and all(a.name != "auto_pad" or a.s in (b"NOTSET", b"VALID") for a in node.attribute)
        and all(a.name != "to" or a.i in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13) for a in node.attribute)
        and all(is_plain(a) for inputs, outputs in test.data_sets for a in (*inputs, *outputs))
    )


CASES = [t for t in ALL if fits(t)]


def channels_last(op: str, inputs: list[np.ndarray | None], attrs: dict[str, Any]) -> list[np.ndarray | None]:
    """Inputs of a channels-last operator, and its settings per axis."""
    x = inputs[0]
    assert x is not None
    order = [0, *range(2, x.ndim), 1]
    turned: list[np.ndarray | None] = [x.transpose(order), *inputs[1:]]
    if op == "Conv":
        assert inputs[1] is not None
        turned[1] = inputs[1].transpose(order)
    if op == "Resize" and "axes" in attrs:
        attrs["axes"] = [order.index(a % x.ndim) for a in attrs["axes"]]
    elif op == "Resize":
        turned[1:] = [
            None if a is None or not a.size else np.concatenate([part[order] for part in np.split(a, a.size // x.ndim)]) for a in inputs[1:]
        ]
    return turned


@pytest.mark.parametrize("test", CASES, ids=lambda t: t.name)
def test_case(test: Any) -> None:
    proto = test.model.graph.node[0]
    op = OPERATORS[proto.op_type]()
    if test.name in DISPUTED:
        pytest.skip(DISPUTED[test.name])
    for feed, wanted in test.data_sets:
        attrs = attributes(proto)
        given = iter(np.asarray(a) for a in feed)
        inputs = [next(given) if name else None for name in proto.input]
        if op.channels_last:
            inputs = channels_last(proto.op_type, inputs, attrs)
        node = Node(proto.op_type, test.name, tuple(proto.input), tuple(proto.output), attrs)
        specs = [None if a is None else TensorSpec("x", a.dtype.name, a.shape) for a in inputs]
        values = [a if k in op.shape_inputs else None for k, a in enumerate(inputs)]
        try:
            inferred = op.infer(node, specs, values)
        except UnsupportedModelError as error:
            assert test.name in str(error)
            pytest.skip(str(error))
        for a, b, spec in zip(op.run(node, inputs), map(np.asarray, wanted), inferred, strict=True):
            if op.channels_last and b.ndim > 2:
                b = np.moveaxis(b, 1, -1)
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert (spec.dtype, spec.shape) == (b.dtype.name, b.shape)
            tolerance = 2e-3 if b.dtype == np.float16 else 1e-5
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_the_cases_are_there() -> None:
    assert len(CASES) > 500
