"""Accuracy of the shared classifiers on the shared data, through the whole trip, against fp32 onnxruntime: at five bits, with k-means
and with signs and residual buckets, none loses more than a point.

``benchmarks/accuracy.py`` has the figures on all of the data, where the bar is met without allowance. Here CIFAR-10 is cut to fewer
images, and a processor whose matrix products round otherwise may end in other symbols; so the drop is judged less its paired standard
error."""

from __future__ import annotations

import functools
from pathlib import Path

import datasets
import networks
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

import edgeinfer as ei  # noqa: E402
from edgeinfer.compress.importer import import_model  # noqa: E402
from edgeinfer.container import Reader  # noqa: E402

#: images per network, at most
MOST = 2000


@functools.cache
def correct(name: str) -> np.ndarray:
    """Per sample: 1 where fp32 onnxruntime is right."""
    model = networks.load_model(networks.shared_model(name)).SerializeToString()
    return datasets.top1(ort.InferenceSession(model, providers=["CPUExecutionProvider"]), name, most=MOST)


def compressed(name: str, folder: Path, quantizer: str, bits: int) -> np.ndarray:
    target = folder / "model.edge"
    ei.compress(str(networks.shared_model(name)), str(target), quantizer=quantizer, bits=bits)
    with ei.InferenceSession(target, batch=25) as session:
        return datasets.top1(session, name, most=MOST)


@pytest.mark.slow
@pytest.mark.parametrize("quantizer", ["kmeans", "sign"])
@pytest.mark.parametrize("name", datasets.CLASSIFIERS)
def test_five_bits_lose_at_most_a_point(name: str, quantizer: str, tmp_path: Path) -> None:
    drop = 100.0 * (correct(name) - compressed(name, tmp_path, quantizer, 5))
    assert drop.mean() - drop.std() / np.sqrt(len(drop)) <= 1.0


@pytest.mark.slow
def test_codebooks_of_256_values_survive_eight_bits(tmp_path: Path) -> None:
    before, after = correct("mobilenetv2_dq"), compressed("mobilenetv2_dq", tmp_path, "kmeans", 8)
    assert (before != after).mean() <= 0.002


@pytest.mark.parametrize("quantizer", ["kmeans", "sign", "uniform"])
def test_every_weight_is_within_the_stated_error(quantizer: str, tmp_path: Path) -> None:
    target = tmp_path / "model.edge"
    source = networks.shared_model("cifar_resnet20")
    ei.compress(str(source), str(target), quantizer=quantizer, bits=5)
    _, weights = import_model(source)
    with Reader(target) as reader:
        for name, entry in reader.entries.items():
            if not entry.is_plain:
                decoded = reader.decode(name).reshape(entry.shape)
                assert np.abs(decoded.astype(np.float64) - weights[name]).max() <= entry.max_error * (1 + 1e-6) + 1e-12
