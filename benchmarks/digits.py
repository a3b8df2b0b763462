"""Small networks for the ensemble benchmark: trained with NumPy alone on the handwritten digits that come with scikit-learn.

    python benchmarks/digits.py FOLDER --members 8

Each member is one convolution, one pooling and two fully connected layers, and differs from the others by its random start and the
order of its samples only, as the members of Tann et al. 2018 do. Written as ONNX files ``digits0.onnx`` ...; input ``digits`` float32
``[N, 1, 8, 8]`` (pixels 0..16 divided by 16), output ``logits`` float32 ``[N, 10]``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TRAINED = 900  # of the 1797 digits; the others are never seen in training
SIDE, FILTERS, HIDDEN, CLASSES = 8, 24, 96, 10
EPOCHS, BATCH, RATE = 30, 50, 2e-3


def split(seed: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images float32 ``[n, 1, 8, 8]`` and labels, then those that are held out; the same split everywhere."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    images = (digits.images[order] / 16).astype(np.float32)[:, None]
    labels = digits.target[order].astype(np.int64)
    return images[:TRAINED], labels[:TRAINED], images[TRAINED:], labels[TRAINED:]


def _patches(images: np.ndarray) -> np.ndarray:
    """3x3 neighbourhoods with a border of zeros: ``[n, 8, 8, 9]``."""
    padded = np.pad(images[:, 0], ((0, 0), (1, 1), (1, 1)))
    return np.stack([padded[:, y : y + SIDE, x : x + SIDE] for y in range(3) for x in range(3)], axis=-1)


def train(images: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Adam on cross entropy, digits moved by up to one pixel; returns weights by name (convolution ``[24, 1, 3, 3]``, rows by columns)."""
    generator = np.random.default_rng(seed)
    flat = FILTERS * (SIDE // 2) ** 2

    def start(*shape: int) -> np.ndarray:
        return (generator.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)

    w = {"conv": start(FILTERS, 9), "hidden": start(HIDDEN, flat), "out": start(CLASSES, HIDDEN)}
    w |= {f"{name}_b": np.zeros(len(w[name]), np.float32) for name in list(w)}
    first = {k: np.zeros_like(v) for k, v in w.items()}
    second = {k: np.zeros_like(v) for k, v in w.items()}
    steps, total = 0, EPOCHS * (len(images) // BATCH)
    for _ in range(EPOCHS):
        order = generator.permutation(len(images))
        for at in range(0, len(order) - BATCH + 1, BATCH):
            batch = order[at : at + BATCH]
            dy, dx = generator.integers(-1, 2, 2)
            x = _patches(np.roll(images[batch], (dy, dx), axis=(2, 3)))
            conv = np.maximum(x @ w["conv"].T + w["conv_b"], 0)
            blocks = conv.reshape(BATCH, 4, 2, 4, 2, FILTERS)
            pooled = blocks.max(axis=(2, 4))
            winner = blocks == pooled[:, :, None, :, None]
            image = pooled.transpose(0, 3, 1, 2).reshape(BATCH, -1)  # channels first, as Flatten gives them
            hidden = np.maximum(image @ w["hidden"].T + w["hidden_b"], 0)
            logits = hidden @ w["out"].T + w["out_b"]
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            p[np.arange(BATCH), labels[batch]] -= 1
            d = p / BATCH
            slope = {"out": d.T @ hidden, "out_b": d.sum(axis=0)}
            d = (d @ w["out"]) * (hidden > 0)
            slope |= {"hidden": d.T @ image, "hidden_b": d.sum(axis=0)}
            d = (d @ w["hidden"]).reshape(BATCH, FILTERS, 4, 4).transpose(0, 2, 3, 1)
            d = ((d[:, :, None, :, None] * winner).reshape(conv.shape) * (conv > 0)).reshape(-1, FILTERS)
            slope |= {"conv": d.T @ x.reshape(-1, 9), "conv_b": d.sum(axis=0)}
            steps += 1
            rate = RATE * 0.5 * (1 + np.cos(np.pi * steps / total))
            for k, g in slope.items():
                first[k] = 0.9 * first[k] + 0.1 * g
                second[k] = 0.999 * second[k] + 0.001 * g * g
                w[k] -= (rate * (first[k] / (1 - 0.9**steps)) / (np.sqrt(second[k] / (1 - 0.999**steps)) + 1e-8)).astype(np.float32)
    w["conv"] = w["conv"].reshape(FILTERS, 1, 3, 3)
    return w


def to_onnx(w: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A trained network, batch ``N`` free."""
    nodes = [
        helper.make_node("Conv", ["digits", "conv", "conv_b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "hidden", "hidden_b"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["hr"]),
        helper.make_node("Gemm", ["hr", "out", "out_b"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("digits", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(v, k) for k, v in w.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def make(folder: Path, members: int) -> list[Path]:
    """Train what is not there yet; returns the ONNX files."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels, _, _ = split()
    paths = [folder / f"digits{seed}.onnx" for seed in range(members)]
    for seed, path in enumerate(paths):
        if not path.exists():
            onnx.save(to_onnx(train(images, labels, seed)), path)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--members", type=int, default=8)
    options = parser.parse_args()
    for path in make(options.folder, options.members):
        print(path)


if __name__ == "__main__":
    main()
