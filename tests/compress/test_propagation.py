"""Samples on their way through a network: what layers see is what they see when it runs, through quantized weights."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from reference_executor import execute  # noqa: E402

from edgeinfer.compress import propagation  # noqa: E402
from edgeinfer.compress.propagation import Propagation  # noqa: E402
from edgeinfer.compress.roles import matrices  # noqa: E402
from edgeinfer.compress.samples import COUNT, dead_leaves, made_samples  # noqa: E402
from edgeinfer.graph import Graph, TensorSpec  # noqa: E402
from edgeinfer.quantizers import QUANTIZERS  # noqa: E402

from .graphs import imported, model, node, weight  # noqa: E402


def network():
    nodes = [
        node("Conv", "x w", "a", "conv", pads=[1] * 4, strides=[2, 2]),
        node("Relu", "a", "r"),
        node("Conv", "r d", "b", "depthwise", group=16, pads=[1] * 4),
        node("Conv", "b g", "c", "grouped", group=4),
        node("GlobalAveragePool", "c", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f m k", "h", "fc", transB=1),
        node("Gemm", "h n", "y", "last", transB=1),
    ]
    weights = {"w": weight(16, 3, 3, 3), "d": weight(16, 1, 3, 3, seed=2), "g": weight(32, 4, 1, 1, seed=3), "m": weight(20, 32, seed=4)}
    weights |= {"k": weight(20), "n": weight(5, 20, seed=5)}
    return matrices(*imported(model(nodes, [("x", ["N", 3, 16, 16])], ["y"], weights)))


@pytest.mark.parametrize(("group", "slab"), [(1 << 18, 1 << 22), (1, 30)])
def test_layers_see_what_runs_through_quantized_weights(monkeypatch: pytest.MonkeyPatch, group: int, slab: int) -> None:
    monkeypatch.setattr(propagation, "GROUP", group)
    monkeypatch.setattr(propagation, "SLAB", slab)
    graph, weights, roles = network()
    images = dead_leaves(6, 3, (16, 16))
    walk = Propagation(graph, weights, roles, {"x": images}, even=False)
    used: dict[str, np.ndarray] = dict(weights)
    products = [n for n in graph.nodes if n.op in ("Conv", "Gemm")]
    for n in products:
        name = n.inputs[1]
        quantized = QUANTIZERS["kmeans"](bits=3).quantize(weights[name].reshape(roles[name].rows, -1))
        found = walk.inputs(name)
        if n.name == "depthwise":
            assert found is None
        else:
            assert found is not None and len(found) == roles[name].groups
            x = execute(graph, used, {"x": images}, [n.inputs[0]])[0]
            if n.op == "Gemm" or n.attrs["kernel_shape"] == [1, 1]:
                expected = np.split(x.reshape(-1, x.shape[-1]), roles[name].groups, axis=1)
                for one, other in zip(found, expected, strict=True):
                    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
            else:  # each row of windows gives one output pixel
                plain = type(n)(n.op, n.name, n.inputs[:2], n.outputs, {k: v for k, v in n.attrs.items() if k != "activation"})
                upto = Graph("g", graph.inputs, (), (*graph.nodes[: graph.nodes.index(n)], plain))
                y = execute(upto, used, {"x": images}, [n.outputs[0]])[0]
                got = found[0] @ used[name].reshape(roles[name].rows, -1).T
                np.testing.assert_allclose(got.reshape(y.shape), y, rtol=1e-4, atol=1e-4)
        walk.record(name, quantized)
        used[name] = quantized.decode().reshape(weights[name].shape)


def test_made_samples_weigh_the_same_and_rows_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(propagation, "POSITIONS", 48)
    graph, weights, roles = network()
    samples = made_samples(graph)
    assert samples is not None and samples["x"].shape == (COUNT, 3, 16, 16)
    assert samples["x"][1::2].std() > 30 * samples["x"][::2].std()
    first = next(n.inputs[1] for n in graph.nodes if n.op == "Conv")
    (rows,) = Propagation(graph, weights, roles, samples, even=True).inputs(first)
    assert rows.shape == (48, 27)
    np.testing.assert_allclose(np.square(rows).reshape(COUNT, -1).mean(axis=1), 0.5, rtol=1e-4)  # two rows of each image: half each


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        (("N", 3, 20, 24), "float32", (COUNT, 3, 20, 24)),
        ((1, 1, 16, 16), "float32", (COUNT, 1, 16, 16)),
        (("N", 1, 8, 8), "float32", None),
        (("N", 30, 20, 3), "float32", (COUNT, 30, 20, 3)),
        (("N", 3, "H", "W"), "float32", (COUNT, 3, 224, 224)),
        (("N", 16, 20, 24), "float32", None),
        (("N", 3, 4, 24), "float32", None),
        (("N", 3, 20, 24), "uint8", None),
        (("N", "T", 161), "float32", None),
    ],
)
def test_what_counts_as_an_image(shape: tuple, dtype: str, expected: tuple | None) -> None:
    found = made_samples(Graph("g", (TensorSpec("x", dtype, shape),), (), ()))
    assert (None if found is None else found["x"].shape) == expected


def test_dead_leaves_are_the_same_every_time_and_have_edges() -> None:
    images = dead_leaves(3, 3, (64, 48))
    np.testing.assert_array_equal(images, dead_leaves(3, 3, (64, 48)))
    assert images.dtype == np.float32 and 0.5 < images.std() < 1.5 and abs(images.mean()) < 0.7
    steps = np.abs(np.diff(images, axis=2))
    assert np.quantile(steps, 0.99) > 5 * np.median(steps)  # flat areas and edges; noise has 3.8
