"""A small network with everything a session has to get right: two inputs joined by a concatenation, a residual, a product."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def small_model(batch: int | str = "N", side: int = 12) -> onnx.ModelProto:
    """``left`` and ``right`` [batch, 5, side, side] -> ``scores`` [batch, 7]: two convolutions into one Concat, a residual block,
    a Gemm."""
    generator = np.random.default_rng(7)
    weights: list[onnx.TensorProto] = []

    def weight(name: str, *shape: int) -> str:
        values = generator.standard_normal(shape) * np.sqrt(2 / max(1, int(np.prod(shape[1:]))))
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    nodes = [
        helper.make_node("Conv", ["left", weight("w1", 9, 5, 3, 3), weight("b1", 9)], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["right", weight("w2", 40, 5, 1, 1)], ["c2"], "conv2"),
        helper.make_node("Concat", ["r1", "c2"], ["joined"], "concat", axis=1),
        helper.make_node("Conv", ["joined", weight("w3", 49, 49, 3, 3), weight("b3", 49)], ["c3"], "conv3", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c3", "joined"], ["sum"], "add"),
        helper.make_node("Relu", ["sum"], ["r3"], "relu3"),
        helper.make_node("GlobalAveragePool", ["r3"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", weight("w4", 7, 49), weight("b4", 7)], ["scores"], "gemm", transB=1),
    ]
    picture = [batch, 5, side, side]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, picture) for n in ("left", "right")],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 7])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def feed(count: int, seed: int = 0, side: int = 12) -> dict[str, np.ndarray]:
    """Inputs of :func:`small_model`."""
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal((count, 5, side, side)).astype(np.float32) for name in ("left", "right")}
