"""Whole networks against onnxruntime: values, batches, kernel variants, threads; and their footprint under a ceiling.

The nine light networks and every shared model go through the whole trip: compress with quantizer ``none``, plan, run.
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

import networks
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

import edgeinfer as ei  # noqa: E402
from edgeinfer.kernels.codec import available_kernels  # noqa: E402

FOLDER = Path(os.environ.get("EDGEINFER_TEST_CACHE") or Path(tempfile.gettempdir()) / "edgeinfer-test-networks")
#: one run of VGG-19 takes seconds with plain kernels: these are checked for values on the best variant only
HEAVY = {"vgg19", "bvlc_alexnet", "zfnet512"}


def without_last_softmax(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network up to the input of its last Softmax, if it ends in one."""
    last = model.graph.node[-1]
    if last.op_type == "Softmax":
        shape = model.graph.output[0].type.tensor_type.shape
        output = onnx.helper.make_tensor_value_info(last.input[0], onnx.TensorProto.FLOAT, None)
        if len(shape.dim):
            output.type.tensor_type.shape.CopyFrom(shape)
        del model.graph.node[-1]
        del model.graph.output[:]
        model.graph.output.append(output)
    return model


@functools.cache
def prepared(name: str) -> tuple[Path, Path]:
    """(ONNX file, container with quantizer ``none``) of a network, without its last Softmax."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    source = FOLDER / f"{name}-values.onnx"
    if name in networks.LIGHT:
        model = networks.light_network(name)
    else:
        model = networks.load_model(networks.shared_model(name))
    onnx.save(without_last_softmax(model), source)
    target = FOLDER / f"{name}-values.edge"
    ei.compress(str(source), str(target), quantizer="none")
    return source, target


@functools.cache
def reference(name: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    return ort.InferenceSession(str(prepared(name)[0]), options, providers=["CPUExecutionProvider"])


def feeds(name: str, count: int, seed: int) -> dict[str, np.ndarray]:
    if name in networks.LIGHT:
        return {reference(name).get_inputs()[0].name: networks.smooth_images(count, (3, 224, 224), seed)}
    return networks.shared_inputs(name, count, seed)


def fixed_batch(name: str) -> bool:
    return ei.InferenceSession(prepared(name)[1]).store.graph.batch is None


def spread(first: list[np.ndarray], second: list[np.ndarray]) -> list[float]:
    return [float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True)]


@pytest.mark.parametrize("name", networks.LIGHT + networks.SHARED)
def test_values_equal_onnxruntime(name: str) -> None:
    one, two = feeds(name, 1, 11), feeds(name, 1, 12)
    expected_one, expected_two = reference(name).run(None, one), reference(name).run(None, two)
    with ei.InferenceSession(prepared(name)[1], threads=2) as session:
        got_one = session.run(None, one)
        got_two = session.run(None, two)
    for expected, other, got, got_other in zip(expected_one, expected_two, got_one, got_two, strict=True):
        distance = np.abs(expected - other).max()
        if name in networks.LIGHT:
            assert distance >= 0.03 * np.abs(expected).max(), "the network does not tell two inputs apart"
        assert np.abs(expected - got).max() <= 1e-4 * distance
        assert np.abs(other - got_other).max() <= 1e-4 * distance


@pytest.mark.parametrize("name", networks.LIGHT + networks.SHARED)
def test_batch_of_three_equals_three_runs_and_threads_change_nothing(name: str) -> None:
    path = prepared(name)[1]
    with ei.InferenceSession(path, threads=2, batch=3) as session:
        if session.store.graph.batch is None:
            inputs = feeds(name, 1, 5)
            together = session.run(None, inputs)
            with ei.InferenceSession(path, threads=1) as single:
                for a, b in zip(together, single.run(None, inputs), strict=True):
                    np.testing.assert_array_equal(a, b)
            assert session.store.graph.notes, "a kept batch needs a reason"
            return
        inputs = feeds(name, 3, 5)
        together = session.run(None, inputs)
    with ei.InferenceSession(path, threads=1) as session:
        apart = [session.run(None, {k: v[i : i + 1] for k, v in inputs.items()}) for i in range(3)]
    for index, whole in enumerate(together):
        np.testing.assert_array_equal(whole, np.concatenate([outputs[index] for outputs in apart]))


@pytest.mark.parametrize("name", [n for n in networks.LIGHT + networks.SHARED if n not in HEAVY])
def test_kernel_variants_agree(name: str) -> None:
    inputs = feeds(name, 1, 3)
    results = {}
    for variant in available_kernels():
        with ei.InferenceSession(prepared(name)[1], threads=2, kernels=variant) as session:
            results[variant] = session.run(None, inputs)
    for variant, got in results.items():
        for a, b in zip(results["plain"], got, strict=True):
            assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max(), variant


def test_the_network_with_subgraphs_is_refused_by_name() -> None:
    with pytest.raises(ei.UnsupportedModelError, match="If"):
        ei.compress(str(networks.shared_model(networks.REFUSED)), str(FOLDER / "refused.edge"))
    assert not (FOLDER / "refused.edge").exists()
