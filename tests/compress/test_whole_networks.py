"""Every network there is, imported and run by the reference executor, against onnxruntime."""

from __future__ import annotations

import gc

import networks
import numpy as np
import pytest
from reference_executor import execute

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from edgeinfer.compress.importer import import_model  # noqa: E402
from edgeinfer.errors import UnsupportedModelError  # noqa: E402

from .graphs import distance, ops  # noqa: E402

IMAGES = [n for n in networks.SHARED if n not in ("minilm", "nsnet2")]


def reference(path, names, feeds):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    source = str(path) if path.suffix == ".onnx" else networks.load_model(path).SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return [session.run(names, {k: v[i : i + 1] for k, v in feeds.items()}) for i in range(len(next(iter(feeds.values()))))]


@pytest.mark.parametrize("name", networks.LIGHT)
def test_light_networks(name: str) -> None:
    path = networks.light_network_file(name)
    graph, weights = import_model(path)
    (data,) = graph.inputs
    assert data.shape == ("N", 3, 224, 224) and graph.batch == "N" and not graph.notes
    assert graph.outputs[0].shape[:2] == ("N", 1000)
    kinds = ops(graph)
    assert kinds["Transpose"] == (17 if name == "shufflenet" else 1), kinds  # the shuffles themselves, and the input
    assert not {"Add", "Sum", "Mul", "Identity", "Dropout", "Unsqueeze", "MatMul"} & set(kinds), kinds
    assert name == "shufflenet" or "Relu" not in kinds  # there three Relus follow a Concat
    feeds = {data.name: networks.smooth_images(1 if name in ("vgg19", "zfnet512") else 3, (3, 224, 224), 5)}
    expected = reference(path, [t.name for t in graph.outputs], feeds)
    got = execute(graph, weights, feeds)  # a freed batch of 3 against three runs
    for i, one in enumerate(expected):
        assert distance([g[i : i + 1] for g in got], one) <= 1e-4
    del weights
    gc.collect()


@pytest.mark.parametrize("name", networks.SHARED)
def test_shared_models(name: str) -> None:
    path = networks.shared_model(name)
    graph, weights = import_model(path)
    assert graph.batch == "N" and not graph.notes
    feeds = networks.shared_inputs(name, count=3, seed=3, length=9)
    expected = reference(path, [t.name for t in graph.outputs], feeds)
    got = execute(graph, weights, feeds)
    for i, one in enumerate(expected):
        assert distance([g[i : i + 1] for g in got], one) <= 1e-4
    kinds = ops(graph)
    if name in IMAGES:
        assert kinds["Transpose"] == 1, kinds
    assert not {"Relu", "Clip", "Sigmoid", "Erf", "BatchNormalization", "Identity"} & set(kinds), kinds


def test_declared_shapes_and_types_stay() -> None:
    graph, _ = import_model(networks.shared_model("minilm"))
    assert [(t.name, t.dtype, t.shape) for t in graph.inputs] == [
        (name, "int64", ("N", "S")) for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    assert [(t.name, t.dtype, t.shape) for t in graph.outputs] == [("token_embeddings", "float32", ("N", "S", 384))]


def test_attention_needs_no_computed_shapes() -> None:
    graph, weights = import_model(networks.shared_model("minilm"))
    kinds = ops(graph)
    assert kinds["Gemm"] == 36 and kinds["MatMul"] == 12 and kinds["LayerNormalization"] == 13
    assert kinds["Shape"] == 1  # the positions depend on the length of the input
    assert all("shape" in n.attrs for n in graph.nodes if n.op == "Reshape")
    assert all(n.attrs["alpha"] == pytest.approx(32**-0.5) for n in graph.nodes if n.op == "MatMul" and "alpha" in n.attrs)
    for length in (1, 4, 512):
        feeds = {t.name: np.ones((2, length), np.int64) for t in graph.inputs}
        assert execute(graph, weights, feeds)[0].shape == (2, length, 384)


def test_subgraphs_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        import_model(networks.shared_model(networks.REFUSED))
    assert "If x 3: /model/decoder/If, /model/decoder/If_1, /model/If" in str(caught.value)


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_light_networks_as_they_are_shipped(name: str) -> None:
    """Weights are made by ConstantOfShape nodes. Logits come out equal, so that outputs are a matter of rounding and not compared."""
    path = networks.light_source(name)
    graph, weights = import_model(path)
    assert "ConstantOfShape" not in ops(graph) and graph.batch == "N"
    expected, others = import_model(networks.light_network_file(name))
    assert ops(graph) == ops(expected) and graph.outputs == expected.outputs
    filters = [weights[node.inputs[1]] for node in graph.nodes if node.op == "Conv"]
    assert [w.shape for w in filters] == [others[n.inputs[1]].shape for n in expected.nodes if n.op == "Conv"]
