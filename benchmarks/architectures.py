"""Networks that no package ships as ONNX: ResNet-18, VGG-16 and MobileNetV2 in their published shapes, with seeded weights.

    python benchmarks/architectures.py mobilenetv2 mobilenetv2.onnx

Weights are He-normal (N(0, sqrt(2 / fan_in)), from the name's own seed); batch norms are folded, as an exporter leaves a trained
network; input ``data`` [1, 3, 224, 224], output ``scores`` [1, 1000]. Shapes: He et al. 2016, table 1; Simonyan and Zisserman 2015,
column D; Sandler et al. 2018, table 2.
"""

from __future__ import annotations

import argparse
import os
import zlib
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper


class Builder:
    """A chain of nodes whose last output is ``at``, with ``channels`` channels."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.random = np.random.default_rng(zlib.crc32(name.encode()))
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.at, self.channels = "data", 3

    def add(self, op: str, inputs: list[str], **attributes: object) -> str:
        """A node; returns the name of its output, which becomes ``at``."""
        self.at = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [self.at], f"n{len(self.nodes)}", **attributes))
        return self.at

    def weight(self, values: np.ndarray) -> str:
        """A constant; returns its name."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def conv(self, rows: int, kernel: int, stride: int = 1, group: int = 1, act: str = "Relu", gain: float = 1.0) -> str:
        """Convolution with "same" padding, bias, and an activation (``Relu``, ``Clip`` to 0..6, or none)."""
        shape = (rows, self.channels // group, kernel, kernel)
        scale = gain * np.sqrt(2 / np.prod(shape[1:]))
        inputs = [self.at, self.weight(self.random.standard_normal(shape) * scale), self.weight(self.random.standard_normal(rows) * 0.1)]
        pads = [kernel // 2] * 4
        self.add("Conv", inputs, kernel_shape=[kernel, kernel], strides=[stride, stride], pads=pads, group=group)
        self.channels = rows
        if act == "Clip":
            return self.add("Clip", [self.at, self.weight(np.array(0)), self.weight(np.array(6))])
        return self.add(act, [self.at]) if act else self.at

    def dense(self, rows: int, inputs: int, act: str = "") -> str:
        """Fully connected layer of a flat input."""
        matrix = self.random.standard_normal((rows, inputs)) * np.sqrt(2 / inputs)
        self.add("Gemm", [self.at, self.weight(matrix), self.weight(np.zeros(rows))], transB=1)
        return self.add(act, [self.at]) if act else self.at

    def max_pool(self, kernel: int, stride: int, pad: int = 0) -> str:
        return self.add("MaxPool", [self.at], kernel_shape=[kernel, kernel], strides=[stride, stride], pads=[pad] * 4)

    def head(self) -> None:
        """Average over the image, then 1000 scores."""
        self.add("GlobalAveragePool", [self.at])
        self.add("Flatten", [self.at])
        self.dense(1000, self.channels)

    def model(self) -> onnx.ModelProto:
        self.nodes[-1].output[0] = "scores"
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info("data", onnx.TensorProto.FLOAT, [1, 3, 224, 224])],
            [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [1, 1000])],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def vgg16() -> onnx.ModelProto:
    net = Builder("vgg16")
    for rows, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            net.conv(rows, 3)
        net.max_pool(2, 2)
    net.add("Flatten", [net.at])
    net.dense(4096, 512 * 7 * 7, "Relu")
    net.dense(4096, 4096, "Relu")
    net.dense(1000, 4096)
    return net.model()


def resnet18() -> onnx.ModelProto:
    net = Builder("resnet18")
    net.conv(64, 7, 2)
    net.max_pool(3, 2, 1)
    for rows, first in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for stride in (first, 1):
            start, channels = net.at, net.channels
            net.conv(rows, 3, stride)
            body = net.conv(rows, 3, act="", gain=0.5)
            if stride > 1:
                net.at, net.channels = start, channels
                start = net.conv(rows, 1, stride, act="")
            net.add("Relu", [net.add("Add", [body, start])])
    net.head()
    return net.model()


def mobilenetv2() -> onnx.ModelProto:
    net = Builder("mobilenetv2")
    net.conv(32, 3, 2, act="Clip")
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expand, rows, count, first in stages:
        for index in range(count):
            start, channels, stride = net.at, net.channels, first if index == 0 else 1
            wide = channels * expand
            if expand > 1:
                net.conv(wide, 1, act="Clip")
            net.conv(wide, 3, stride, group=wide, act="Clip")
            net.conv(rows, 1, act="", gain=0.7)
            if stride == 1 and channels == rows:
                net.add("Add", [net.at, start])
    net.conv(1280, 1, act="Clip")
    net.head()
    return net.model()


ARCHITECTURES = {"resnet18": resnet18, "vgg16": vgg16, "mobilenetv2": mobilenetv2}


def architecture_file(name: str, folder: Path) -> Path:
    """A network of :data:`ARCHITECTURES` as a file in ``folder``, made on first use and kept."""
    path = folder / f"{name}-he.onnx"
    if not path.exists():
        part = folder / f".{path.name}.{os.getpid()}"
        onnx.save(ARCHITECTURES[name](), part)
        part.replace(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=ARCHITECTURES)
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    onnx.save(ARCHITECTURES[options.name](), options.file)


if __name__ == "__main__":
    main()
