"""Small classifiers on one task, for tests of ensembles and layer caches: points around class centres, seen through random networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

CLASSES, SIDE, CHANNELS = 4, 6, 2


def rows(count: int, seed: int, noise: float = 2.5) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 ``[count, 2, 6, 6]`` around one pattern per class, and their classes."""
    patterns = np.random.default_rng(5).standard_normal((CLASSES, CHANNELS, SIDE, SIDE))
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, count)
    images = patterns[labels] + noise * generator.standard_normal((count, CHANNELS, SIDE, SIDE))
    return images.astype(np.float32), labels


def classifier(seed: int, width: int = 24, classes: int = CLASSES) -> onnx.ModelProto:
    """Three random convolutions with a pooling between, then a linear layer fitted by least squares to rows of the task."""
    generator = np.random.default_rng(seed)
    kernels = [
        (generator.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
        for shape in ((width, CHANNELS, 3, 3), (width, width, 3, 3), (width, width, 1, 1))
    ]
    nodes = [
        helper.make_node("Conv", ["image", "k0"], ["c0"], "conv0", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"], "relu0"),
        helper.make_node("MaxPool", ["r0"], ["p0"], "pool0", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p0", "k1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "k2"], ["c2"], "conv2"),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("Flatten", ["r2"], ["flat"], "flatten"),
    ]
    constants = [numpy_helper.from_array(k, f"k{i}") for i, k in enumerate(kernels)]

    def model(out: str, shape: list[int | str], more: list[onnx.NodeProto], extra: list[onnx.TensorProto]) -> onnx.ModelProto:
        graph = helper.make_graph(
            [*nodes, *more],
            "classifier",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", CHANNELS, SIDE, SIDE])],
            [helper.make_tensor_value_info(out, TensorProto.FLOAT, shape)],
            [*constants, *extra],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    from onnx.reference import ReferenceEvaluator

    images, labels = rows(400, 1000 + seed)
    flat = ReferenceEvaluator(model("flat", ["N", width * 9], [], [])).run(None, {"image": images})[0].astype(np.float64)
    square = np.concatenate([flat, np.ones((len(flat), 1))], axis=1)
    target = 6.0 * np.eye(classes)[labels % classes] - 3.0
    solved = np.linalg.solve(square.T @ square + 20.0 * np.eye(square.shape[1]), square.T @ target).astype(np.float32)
    weights = [numpy_helper.from_array(np.ascontiguousarray(solved[:-1].T), "w"), numpy_helper.from_array(solved[-1], "b")]
    return model("logits", ["N", classes], [helper.make_node("Gemm", ["flat", "w", "b"], ["logits"], "gemm", transB=1)], weights)


def containers(folder: Path, widths: tuple[int, ...] = (8, 16, 32)) -> list[Path]:
    """Compressed classifiers, small to large."""
    import edgeinfer as ei

    made = []
    for seed, width in enumerate(widths):
        onnx.save(classifier(seed, width), folder / f"m{seed}.onnx")
        ei.compress(folder / f"m{seed}.onnx", folder / f"m{seed}.edge", quantizer="none")
        made.append(folder / f"m{seed}.edge")
    return made
