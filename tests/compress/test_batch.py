"""A batch of 1 is made free where rows are independent, and kept, with a reason, where they are not."""

from __future__ import annotations

import numpy as np
import pytest
from reference_executor import execute

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from .graphs import check, distance, imported, model, node, onnx_results, ops, weight  # noqa: E402


def freed(proto, count: int = 3):
    """Import; the batch must be free, and ``count`` rows together must be what onnxruntime gives for each alone."""
    graph, weights = check(proto)
    assert graph.batch == "N" and not graph.notes, graph.notes
    assert all(t.shape[0] == "N" for t in (*graph.inputs, *graph.outputs))
    generator = np.random.default_rng(4)
    feeds = {t.name: generator.standard_normal([count, *t.shape[1:]]).astype(t.dtype) for t in graph.inputs}
    together = execute(graph, weights, feeds)
    for i in range(count):
        alone = onnx_results(proto, {k: v[i : i + 1] for k, v in feeds.items()})
        assert distance([t[i : i + 1] for t in together], alone) <= 1e-5
    return graph


def kept(proto, reason: str, batch: str | None = None) -> None:
    graph, _ = imported(proto)
    assert graph.batch == batch and len(graph.notes) == 1 and reason in graph.notes[0], graph.notes


@pytest.mark.parametrize("target", [[1, 12], [1, -1], [-1, 12], [1, 3, 4], [1, 0, 2, 2], [1, -1, 2], [-1, 3, 2, 2]])
def test_reshapes(target: list[int]) -> None:
    freed(model([node("Reshape", "x to", "r"), node("Exp", "r", "y")], [("x", [1, 3, 4])], ["y"], {"to": np.array(target)}))


def test_a_reshape_that_puts_rows_side_by_side_and_back() -> None:
    nodes = [node("Reshape", "x flat", "f"), node("Exp", "f", "e"), node("Reshape", "e back", "y")]
    freed(model(nodes, [("x", [1, 3, 4])], ["y"], {"flat": np.array([-1, 4]), "back": np.array([-1, 3, 4])}))


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Transpose", "x", "t", perm=[1, 0, 2]), node("Softmax", "t", "s", axis=0), node("Transpose", "s", "y", perm=[1, 0, 2])],
        [node("MatMul", "x m", "y")],
        [node("Transpose", "x", "t", perm=[0, 2, 1]), node("MatMul", "x t", "y")],
        [node("ReduceMean", "x", "y", axes=[1], keepdims=0)],
        [node("Concat", "x x", "d", axis=2), node("Split", "d", "y z", axis=-1)],
        [node("Slice", "x starts ends axes", "y")],
        [node("Pad", "x pads", "y")],
        [node("Gather", "x index", "y", axis=1)],
        [node("LayerNormalization", "x g", "y")],
        [node("ArgMax", "x", "y", axis=1, keepdims=0)],
        [node("Flatten", "x", "f"), node("Gemm", "f rows c", "y", transB=1)],
        [node("Shape", "x", "s"), node("ConstantOfShape", "s", "k"), node("Add", "x k", "y")],
        [node("Shape", "x", "s"), node("Reshape", "x s", "y")],
        [node("Unsqueeze", "x two", "u"), node("Squeeze", "u two", "y")],
        [node("Expand", "x wide", "y")],
        [node("Where", "mask x number", "y")],
    ],
    ids=lambda nodes: "-".join(n.op_type for n in nodes),
)
def test_rows_that_are_independent(nodes) -> None:
    weights = {
        "m": weight(4, 5),
        "starts": np.array([0, 1]),
        "ends": np.array([2**40, 3]),
        "axes": np.array([0, 1]),
        "pads": np.array([0, 1, 0, 0, 0, 2]),
        "index": np.array([2, 0]),
        "g": weight(4),
        "rows": weight(5, 12),
        "c": weight(5),
        "two": np.array([2]),
        "wide": np.array([1, 3, 4]),
        "mask": weight(3, 4) > 0,
        "number": np.float32(0.5),
    }
    used = {i for n in nodes for i in n.input}
    freed(model(nodes, [("x", [1, 3, 4])], ["y"], {k: v for k, v in weights.items() if k in used}))


def test_images() -> None:
    nodes = [
        node("Conv", "x w", "a"),
        node("BatchNormalization", "a s h m v", "b"),
        node("MaxPool", "b", "p", kernel_shape=[2, 2]),
        node("GlobalAveragePool", "p", "g"),
        node("Reshape", "g to", "r"),
        node("Gemm", "r k c", "y", transB=1),
    ]
    weights = {
        "w": weight(8, 3, 3, 3),
        "to": np.array([1, 8]),
        "k": weight(5, 8),
        "c": weight(5),
        **{k: np.abs(weight(8)) + 0.5 for k in "shmv"},
    }
    graph = freed(model(nodes, [("x", [1, 3, 8, 8])], ["y"], weights))
    assert ops(graph)["Conv"] == 1


def test_recurrent_batch_lies_on_axis_one() -> None:
    nodes = [node("Transpose", "x", "t", perm=[1, 0, 2]), node("GRU", "t w r", "q", hidden_size=5), node("Squeeze", "q one", "s")]
    nodes.append(node("Transpose", "s", "y", perm=[1, 0, 2]))
    freed(model(nodes, [("x", [1, 6, 4])], ["y"], {"w": weight(1, 15, 4), "r": weight(1, 15, 5), "one": np.array([1])}))


def test_two_inputs() -> None:
    freed(model([node("Add", "x z", "y")], [("x", [1, 3, 4]), ("z", [1, 1, 4])], ["y"]))


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("Softmax", "x", "y", "soft", axis=0)], "'soft' mixes rows"),
        ([node("ReduceMax", "x", "y", "top", axes=[0])], "'top' mixes rows"),
        ([node("ReduceSum", "x", "y", "all")], "'all' mixes rows"),
        ([node("Concat", "x x", "y", "both", axis=0)], "'both' mixes rows"),
        ([node("Concat", "x k", "y", "more", axis=1)], "'more' has the batch built in"),
        ([node("Gather", "x zero", "y", "first", axis=0)], "'first' mixes rows"),
        ([node("Squeeze", "x axis", "y", "bare")], "'bare' has the batch built in"),
        ([node("Reshape", "x flat", "y", "flat")], "'flat' has the batch built in"),
        ([node("Reshape", "x swap", "y", "swap")], "'swap'"),
        ([node("Transpose", "x", "y", "turn", perm=[1, 0, 2])], "output 'y'"),
        ([node("Pad", "x pads", "y", "rim")], "'rim' mixes rows"),
        ([node("GRU", "x w r", "q", "rnn", hidden_size=5), node("Squeeze", "q one", "y")], "'rnn' mixes rows"),
        (
            [node("Transpose", "x", "t", perm=[1, 2, 0]), node("Transpose", "x", "u", perm=[1, 0, 2]), node("MatMul", "t u", "y", "pair")],
            "'pair'",
        ),
        ([node("CumSum", "x zero", "y", "sum")], "'sum' may mix rows"),
        ([node("Shape", "x", "y")], "output 'y'"),
    ],
    ids=lambda p: p if isinstance(p, str) else "",
)
def test_rows_that_are_not(nodes, reason: str) -> None:
    weights = {
        "k": weight(1, 2, 4),
        "zero": np.array(0),
        "axis": np.array([0]),
        "flat": np.array([12]),
        "swap": np.array([3, 4]),
        "one": np.array([1]),
        "pads": np.array([1, 0, 0, 0, 0, 0]),
        "w": weight(1, 15, 4),
        "r": weight(1, 15, 5),
    }
    used = {i for n in nodes for i in n.input}
    proto = model(nodes, [("x", [1, 3, 4])], ["y"], {k: v for k, v in weights.items() if k in used})
    kept(proto, reason)


def test_a_symbol_is_the_batch_only_where_rows_are_independent() -> None:
    graph, _ = check(model([node("Softmax", "x", "y", axis=1)], [("x", ["rows", 3])], ["y"]), sizes={"rows": 4})
    assert graph.batch == "rows" and graph.inputs[0].shape == ("rows", 3)
    kept(model([node("Softmax", "x", "y", "soft", axis=0)], [("x", ["rows", 3])], ["y"]), "'soft' mixes rows")


@pytest.mark.parametrize("shapes", [([2, 3], [2, 3]), ([1, 3], [2, 3]), (["N", 3], [1, 3]), ([1, 3], [3])])
def test_inputs_without_a_common_batch(shapes) -> None:
    kept(model([node("Add", "x z", "y")], [("x", shapes[0]), ("z", shapes[1])], ["y"]), "the batch stays")


def test_a_number_as_input_is_no_batch() -> None:
    graph, _ = check(model([node("Mul", "x z", "y")], [("x", ["N", 3]), ("z", [])], ["y"]), sizes={"N": 2})
    assert graph.batch is None


def test_a_symbol_that_is_called_n_already() -> None:
    graph, _ = imported(model([node("Exp", "x", "y")], [("x", [1, "N"])], ["y"]))
    assert graph.inputs[0].shape == ("N_", "N") and graph.batch == "N_"
