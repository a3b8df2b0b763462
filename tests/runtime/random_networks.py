"""Random small networks for the planner's tests: convolutions, pooling, concatenations, residuals, then products; seeded."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

CODINGS = [
    ("kmeans", "packed", 4),
    ("kmeans", "huffman", 4),
    ("kmeans", "rans", 5),
    ("sign", "huffman", 4),
    ("uniform", "gaps", 3),
    ("none", None, None),
]


def random_model(seed: int) -> onnx.ModelProto:
    """``x`` [N, c, side, side] -> ``scores`` [N, 11], and on some seeds a second output from the middle."""
    draw = random.Random(seed)
    generator = np.random.default_rng(seed)
    nodes, weights = [], []

    def weight(*shape: int) -> str:
        name = f"w{len(weights)}"
        values = generator.standard_normal(shape) * np.sqrt(2 / max(1, int(np.prod(shape[1:]))))
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def node(op: str, inputs: list[str], **attributes: object) -> str:
        name = f"t{len(nodes)}"
        nodes.append(helper.make_node(op, inputs, [name], f"{op.lower()}{len(nodes)}", **attributes))
        return name

    channels, side = draw.choice([3, 16]), draw.choice([12, 16])
    start = side
    outputs = []
    x, inside = "x", channels
    for _ in range(draw.randint(2, 5)):
        kind = draw.choice(["conv", "conv", "group", "residual", "concat", "pool"])
        wide = draw.choice([16, 40, 64])
        if kind == "group" and inside % 2 == 0:
            x, inside = node("Conv", [x, weight(64, inside // 2, 3, 3)], pads=[1] * 4, group=2), 64
        elif kind == "residual":
            y = node("Relu", [node("Conv", [x, weight(inside, inside, 3, 3)], pads=[1] * 4)])
            x = node("Add", [y, x])
        elif kind == "concat":
            a = node("Conv", [x, weight(wide, inside, 1, 1)])
            b = node("Conv", [x, weight(24, inside, 3, 3)], pads=[1] * 4)
            x, inside = node("Concat", [a, b], axis=1), wide + 24
        elif kind == "pool" and side >= 8:
            x, side = node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2]), side // 2
        else:
            x, inside = node("Conv", [x, weight(wide, inside, 3, 3)], pads=[1] * 4), wide
        x = node("Relu", [x])
    if draw.random() < 0.3:
        outputs.append((node("GlobalAveragePool", [x]), ["N", inside, 1, 1]))
    flat = node("Flatten", [x])
    hidden = draw.choice([96, 640])
    y = node("Relu", [node("Gemm", [flat, weight(hidden, inside * side * side)], transB=1)])
    y = node("Softmax", [node("Gemm", [y, weight(11, hidden)], transB=1)], axis=1)
    outputs.insert(0, (y, ["N", 11]))
    graph = helper.make_graph(
        nodes,
        f"random{seed}",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", channels, start, start])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def random_container(seed: int, folder: Path) -> Path:
    """A random model compressed in one of :data:`CODINGS`."""
    import edgeinfer as ei

    quantizer, coder, bits = CODINGS[seed % len(CODINGS)]
    onnx.save(random_model(seed), folder / f"random{seed}.onnx")
    options = {key: value for key, value in (("coder", coder), ("bits", bits)) if value is not None}
    ei.compress(str(folder / f"random{seed}.onnx"), str(folder / f"random{seed}.edge"), quantizer=quantizer, **options)
    return folder / f"random{seed}.edge"


def images(path: Path, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs of a container of :func:`random_container`."""
    import edgeinfer as ei

    with ei.InferenceSession(path, threads=1) as session:
        shape = session.get_inputs()[0].shape
    generator = np.random.default_rng(seed)
    return {"x": generator.standard_normal((count, *(int(d) for d in shape[1:]))).astype(np.float32)}
