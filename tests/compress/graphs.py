"""Small ONNX models for the tests of the importer, and their check against onnxruntime."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from reference_executor import execute

from edgeinfer.compress.draft import Weights
from edgeinfer.compress.importer import import_model
from edgeinfer.graph import Graph

onnxruntime.set_default_logger_severity(3)

Value = tuple[str, Sequence[int | str]] | tuple[str, Sequence[int | str], type]


def node(op: str, inputs: str, outputs: str, name: str = "", **attrs: object) -> onnx.NodeProto:
    """A node; names are separated by spaces, ``_`` stands for an input left out."""
    return helper.make_node(op, ["" if i == "_" else i for i in inputs.split()], outputs.split(), name=name, **attrs)


def value(spec: Value) -> onnx.ValueInfoProto:
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(spec[2] if len(spec) > 2 else np.float32))
    return helper.make_tensor_value_info(spec[0], dtype, list(spec[1]))


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Value],
    outputs: Sequence[str | Value],
    weights: Mapping[str, np.ndarray] | None = None,
    opset: int = 17,
    ir: int = 8,
) -> onnx.ModelProto:
    """A model; outputs given by name alone have no declared shape."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [value(i) for i in inputs],
        [helper.make_empty_tensor_value_info(o) if isinstance(o, str) else value(o) for o in outputs],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def imported(proto: onnx.ModelProto) -> tuple[Graph, Weights]:
    """The model, through a file, through the importer."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(proto.SerializeToString())
        return import_model(path)


def random_inputs(graph: Graph, seed: int = 0, sizes: Mapping[str, int] | None = None) -> dict[str, np.ndarray]:
    """Normal random float inputs for a graph, symbols replaced by ``sizes`` (default 2)."""
    generator = np.random.default_rng(seed)
    shapes = {t.name: [(sizes or {}).get(d, 2) if isinstance(d, str) else d for d in t.shape] for t in graph.inputs}
    return {t.name: generator.standard_normal(shapes[t.name]).astype(t.dtype) for t in graph.inputs}


def onnx_results(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def distance(got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Largest difference of any output, as a part of that output's range."""
    worst = 0.0
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b = a.astype(np.float64), b.astype(np.float64)
        span = float(np.ptp(b)) if b.size else 0.0
        worst = max(worst, float(np.abs(a - b).max(initial=0)) / (span or 1.0))
    return worst


def check(
    proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray] | None = None, sizes: Mapping[str, int] | None = None, tolerance: float = 1e-5
) -> tuple[Graph, Weights]:
    """Import the model; both must compute the same from the same (default: random) inputs of the shapes that the file declares."""
    graph, weights = imported(proto)
    if feeds is None:
        feeds = random_inputs(graph, sizes={graph.batch or "": 1, **(sizes or {})})
    assert distance(execute(graph, weights, feeds), onnx_results(proto, feeds)) <= tolerance
    assert [t.name for t in graph.outputs] == [o.name for o in proto.graph.output]
    assert [t.name for t in graph.inputs] == [i.name for i in proto.graph.input if i.name not in {w.name for w in proto.graph.initializer}]
    return graph, weights


def ops(graph: Graph) -> dict[str, int]:
    """Operator -> how many nodes."""
    return dict(Counter(n.op for n in graph.nodes))


def weight(*shape: int, seed: int = 1) -> np.ndarray:
    """Random float32 weights."""
    return (np.random.default_rng(seed).standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32)
