"""Trains the demo's network on scikit-learn's handwritten digits and writes ``digits.onnx.xz`` and ``digits.npz`` beside this file.

Run as ``python -m edgeinfer.demo.train`` with the ``[train]`` and ``[convert]`` extras; running the demo needs neither. The
``digits.edge`` that ships beside them is what ``edgeinfer compress`` makes of the ONNX file (docs/how-to/demo.md).

Input ``digits``: float32 ``[N, 1, 8, 8]``, the data set's pixel values 0..16 divided by 16. Output ``logits``: float32 ``[N, 10]``.

The network is far wider than 8x8 digits need, on purpose: its 6.8 M fp32 weights (27 MB) do not fit beside Python and NumPy under the
demo's 48 MiB ceiling, which is the situation that edgeinfer is for. So that the file is small enough to ship, it is trained sparse: after
training, the smallest weights of each large layer are cut in steps and the rest is trained further (Han et al., 2015); the 3 % that remain
are rounded to the precision of bfloat16. The ONNX file is an ordinary fp32 one, packed with xz.
"""

from __future__ import annotations

import lzma
import sys
from pathlib import Path

import numpy as np

SEED = 20150
HELD_OUT = 360  # of the 1797 digits; the shipped samples are exactly these, never seen in training
DENSITY = 0.03  # share of a large layer's weights that stays
STAGES = (1.0, 0.5, 0.25, 0.12, 0.06, DENSITY)
EPOCHS = (25, 6, 6, 8, 10, 25)


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Digits as uint8 ``[n, 8, 8]`` (0..16) and labels: training part, held-out part. The split is fixed and stratified."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = digits.images.astype(np.uint8)
    train_x, test_x, train_y, test_y = train_test_split(
        images, digits.target.astype(np.int64), test_size=HELD_OUT, random_state=SEED, stratify=digits.target
    )
    return train_x, train_y, test_x, test_y


def network():
    """Four 3x3 convolutions with batch normalisation, two poolings, three fully connected layers."""
    from torch import nn

    def block(inputs, outputs, *more):
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), *more]

    return nn.Sequential(
        *block(1, 64),
        *block(64, 128, nn.MaxPool2d(2)),
        *block(128, 256),
        *block(256, 512, nn.MaxPool2d(2)),
        nn.Flatten(),
        nn.Linear(512 * 2 * 2, 2048),
        nn.ReLU(),
        nn.Linear(2048, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )


def train(model, images: np.ndarray, labels: np.ndarray) -> None:
    """Adam with one cosine per stage; each batch of digits is shifted by up to one pixel, which the empty borders of most digits allow."""
    import torch
    from torch import nn

    x = torch.from_numpy(images.astype(np.float32) / 16)[:, None]
    y = torch.from_numpy(labels)
    large = [m for m in model if isinstance(m, (nn.Conv2d, nn.Linear)) and m.weight.numel() > 10_000]
    masks = [torch.ones_like(m.weight) for m in large]
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    for density, epochs in zip(STAGES, EPOCHS, strict=True):
        for index, layer in enumerate(large):
            magnitude = layer.weight.detach().abs().flatten()
            keep = max(1, int(density * magnitude.numel()))
            threshold = magnitude.kthvalue(magnitude.numel() - keep + 1).values
            masks[index] = (layer.weight.detach().abs() >= threshold).float()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        steps = epochs * -(-len(x) // 64)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        model.train()
        for _ in range(epochs):
            for batch in torch.randperm(len(x)).split(64):
                shift = torch.randint(-1, 2, (2,)).tolist()
                padded = nn.functional.pad(x[batch], (1, 1, 1, 1))
                rows, columns = 1 + shift[0], 1 + shift[1]
                loss = loss_of(model(padded[:, :, rows : rows + 8, columns : columns + 8]), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                with torch.no_grad():
                    for layer, mask in zip(large, masks, strict=True):
                        layer.weight.mul_(mask)
        print(f"density {density:4.2f}: last loss {loss.item():.4f}", flush=True)
    with torch.no_grad():
        for layer in large:
            layer.weight.copy_(torch.from_numpy(rounded(layer.weight.numpy())))


def rounded(weights: np.ndarray) -> np.ndarray:
    """Nearest float32 values with the precision of bfloat16; zeros that masking left negative become plain zeros."""
    bits = (weights.astype(np.float32) + np.float32(0)).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def accuracy(model, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of digits whose largest logit is the label's."""
    import torch

    model.eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(images.astype(np.float32) / 16)[:, None])
    return float((logits.argmax(1).numpy() == labels).mean())


def to_onnx(model) -> bytes:
    """The trained network as ONNX, node by node: Conv, BatchNormalization, Relu, MaxPool, Flatten, Gemm; batch ``N`` is free."""
    from onnx import TensorProto, checker, helper, numpy_helper
    from torch import nn

    nodes, constants = [], []

    def constant(name: str, tensor) -> str:
        constants.append(numpy_helper.from_array(tensor.detach().numpy().copy(), name))
        return name

    tensor = "digits"
    for index, layer in enumerate(model):
        result = "logits" if index == len(model) - 1 else f"t{index}"
        if isinstance(layer, nn.Conv2d):
            inputs = [tensor, constant(f"conv{index}.weight", layer.weight)]
            node = helper.make_node("Conv", inputs, [result], name=f"conv{index}", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        elif isinstance(layer, nn.BatchNorm2d):
            parts = {"scale": layer.weight, "bias": layer.bias, "mean": layer.running_mean, "var": layer.running_var}
            inputs = [tensor, *(constant(f"norm{index}.{part}", value) for part, value in parts.items())]
            node = helper.make_node("BatchNormalization", inputs, [result], name=f"norm{index}", epsilon=layer.eps)
        elif isinstance(layer, nn.ReLU):
            node = helper.make_node("Relu", [tensor], [result], name=f"relu{index}")
        elif isinstance(layer, nn.MaxPool2d):
            node = helper.make_node("MaxPool", [tensor], [result], name=f"pool{index}", kernel_shape=[2, 2], strides=[2, 2])
        elif isinstance(layer, nn.Flatten):
            node = helper.make_node("Flatten", [tensor], [result], name=f"flatten{index}", axis=1)
        else:
            inputs = [tensor, constant(f"fc{index}.weight", layer.weight), constant(f"fc{index}.bias", layer.bias)]
            node = helper.make_node("Gemm", inputs, [result], name=f"fc{index}", transB=1)
        nodes.append(node)
        tensor = result
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("digits", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        constants,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(proto)
    return proto.SerializeToString()


def main(folder: Path) -> None:
    """Train, report, write the two files into ``folder``."""
    import torch

    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    train_x, train_y, test_x, test_y = split()
    model = network()
    train(model, train_x, train_y)
    weights = sum(p.numel() for p in model.parameters())
    print(
        f"{weights} parameters; accuracy {accuracy(model, train_x, train_y):.2%} on the training digits, "
        f"{accuracy(model, test_x, test_y):.2%} on {len(test_y)} held-out ones"
    )
    onnx = to_onnx(model)
    words = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 2, "lp": 2, "pb": 2}  # the file is mostly 4-byte floats
    packed = lzma.compress(onnx, filters=[words])
    (folder / "digits.onnx.xz").write_bytes(packed)
    np.savez_compressed(folder / "digits.npz", digits=test_x, labels=test_y.astype(np.uint8))
    print(f"digits.onnx.xz: {len(packed)} bytes ({len(onnx)} unpacked); digits.npz: {(folder / 'digits.npz').stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
