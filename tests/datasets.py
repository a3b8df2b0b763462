"""The shared data sets as arrays that the shared models take, and the score each model is judged by.

Where they come from and how they are scored: the READMEs of the shared folders. Tests skip where the folder or Pillow is absent.
"""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable
from pathlib import Path

import networks
import numpy as np
import pytest

#: classifiers of the shared models and the data they are scored on
CLASSIFIERS = {
    "cifar_resnet20": "cifar10",
    "cifar_resnet32": "cifar10",
    "cifar_resnet56": "cifar10",
    "cifar_vgg16": "cifar10",
    "googlenet": "imagenet",
    "squeezenet_dc": "imagenet",
    "mobilenetv2_dq": "imagenet",
}


def _folder() -> Path:
    shared = networks.shared_folder()
    if shared is None or not (shared / "data").is_dir():
        pytest.skip("the folder of shared data is absent (EDGEINFER_SHARED, or ../shared beside the repository)")
    return shared / "data"


def _decode(raw: bytes) -> np.ndarray:
    image = pytest.importorskip("PIL.Image")
    return np.asarray(image.open(io.BytesIO(raw)).convert("RGB"))


@functools.cache
def _cifar(part: str = "test5000") -> tuple[np.ndarray, np.ndarray]:
    with np.load(_folder() / "cifar10" / f"{part}.npz") as stored:
        raw, offset, labels = stored["jpeg"].tobytes(), stored["offset"], stored["y"].astype(np.int64)
    return np.stack([_decode(raw[offset[i] : offset[i + 1]]) for i in range(len(labels))]), labels


def _scaled_cifar(pixels: np.ndarray) -> np.ndarray:
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    deviation = np.array([0.229, 0.224, 0.225], np.float32)
    return np.ascontiguousarray(((pixels.astype(np.float32) / 255 - mean) / deviation).transpose(0, 3, 1, 2))


def training_images(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The 2,000 training images that are shared, as a CIFAR network takes them, and their labels."""
    assert CLASSIFIERS[name] == "cifar10"
    pixels, labels = _cifar("train2000")
    return _scaled_cifar(pixels), labels


@functools.cache
def _imagenet() -> tuple[np.ndarray, np.ndarray]:
    folder = _folder() / "imagenet"
    with open(folder / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    images = np.stack([_decode((folder / row["file"]).read_bytes()) for row in rows])
    return images, np.array([int(row["class"]) for row in rows], dtype=np.int64)


def images(name: str) -> tuple[Callable[[int, int], np.ndarray], np.ndarray]:
    """(function that gives samples ``first .. end`` as the model takes them, float32 NCHW; labels) of a shared classifier."""
    if CLASSIFIERS[name] == "cifar10":
        pixels, labels = _cifar()

        def cifar(first: int, end: int) -> np.ndarray:
            return _scaled_cifar(pixels[first:end])

        return cifar, labels
    pixels, labels = _imagenet()
    side = 227 if name == "squeezenet_dc" else 224
    start = (256 - side) // 2

    def crop(first: int, end: int) -> np.ndarray:
        part = pixels[first:end, start : start + side, start : start + side].astype(np.float32)
        if name == "mobilenetv2_dq":
            part = part / 127.5 - 1
        else:
            part = part[..., ::-1] - np.array([104, 117, 123], np.float32)
        return np.ascontiguousarray(part.transpose(0, 3, 1, 2))

    return crop, labels


def top1(session: object, name: str, batch: int = 25, most: int | None = None) -> np.ndarray:
    """Per sample, of the first ``most``: 1 where the model's first answer is the label. ``session``: of edgeinfer or onnxruntime."""
    sample, labels = images(name)
    labels = labels[:most]
    key = session.get_inputs()[0].name  # type: ignore[attr-defined]
    answers = [
        session.run(None, {key: sample(i, min(i + batch, len(labels)))})[0].argmax(axis=1)  # type: ignore[attr-defined]
        for i in range(0, len(labels), batch)
    ]
    return (np.concatenate(answers) == labels).astype(np.int64)


def sts_spearman(session: object, batch: int = 53) -> float:
    """Spearman correlation x 100 of MiniLM's cosine with the human score."""
    with np.load(_folder() / "sts" / "sts_test_half.npz", allow_pickle=False) as stored:
        first, second, score = stored["a"].astype(np.int64), stored["b"].astype(np.int64), stored["score"]

    def embed(ids: np.ndarray) -> np.ndarray:
        out = []
        for i in range(0, len(ids), batch):
            part = ids[i : i + batch]
            mask = (part != 0).astype(np.int64)
            feed = {"input_ids": part, "attention_mask": mask, "token_type_ids": np.zeros_like(part)}
            tokens = session.run(None, feed)[0]  # type: ignore[attr-defined]
            mean = (tokens * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
            out.append(mean / np.linalg.norm(mean, axis=1, keepdims=True))
        return np.concatenate(out)

    return 100 * _spearman((embed(first) * embed(second)).sum(axis=1), score)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks with ties at their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def si_snr(session: object) -> float:
    """Scale-invariant SNR in dB of NSNet2's output against clean speech."""
    with np.load(_folder() / "speech" / "speech.npz") as stored:
        clean, noisy = stored["clean"].astype(np.float64), stored["noisy"].astype(np.float64)
    size, hop = 320, 160
    window = np.sqrt(np.hanning(size + 1)[:-1])
    starts = range(0, len(noisy) - size + 1, hop)
    spectrum = np.stack([np.fft.rfft(window * noisy[s : s + size]) for s in starts])
    features = np.log10(np.maximum(np.abs(spectrum) ** 2, 1e-12)).astype(np.float32)[None]
    gain = session.run(None, {"features": features})[0][0]  # type: ignore[attr-defined]
    result = np.zeros(len(noisy))
    for index, s in enumerate(starts):
        result[s : s + size] += window * np.fft.irfft(spectrum[index] * gain[index], size)
    target = clean * (result @ clean) / (clean @ clean)
    return float(10 * np.log10((target @ target) / ((result - target) @ (result - target))))
