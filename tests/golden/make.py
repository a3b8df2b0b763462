"""Makes the golden files of the current format version that do not exist yet: ``python tests/golden/make.py``.

Run it once per version of the format and once per further layout of tiles, by hand, and commit what it makes; a golden file is never made
again, it is what old files look like.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from edgeinfer.coders import CODERS, encode_tensor  # noqa: E402
from edgeinfer.container import VERSION, Reader, Writer  # noqa: E402
from edgeinfer.graph import Graph, Node, TensorSpec  # noqa: E402
from edgeinfer.quantizers import KMeans, NoQuantizer, Sign, Uniform  # noqa: E402

GRAPH = Graph(
    "golden",
    (TensorSpec("x", "float32", ("N", 21)),),
    (TensorSpec("y", "float32", ("N", 38)),),
    (Node("Gemm", "fc", ("x", "kmeans-packed", "plain"), ("y",), {"activation": "LeakyRelu", "alpha": 0.1}),),
    "N",
    ("a note",),
)


def waves() -> np.ndarray:
    """Weights that need no random numbers; two blocks, two chunks, rows of different spread."""
    i = np.arange(38 * 21)
    return (np.sin(i * 0.7) * np.cos(i * 0.013) * (1 + i // 21 % 5)).astype(np.float32).reshape(38, 21)


def every_coder(writer: Writer) -> None:
    weights = waves()
    sparse = np.where(np.abs(weights) > 1.9, weights, 0).astype(np.float32)
    for dtype in ("float32", "float16", "bfloat16"):
        writer.add_coded(f"none-{dtype}", (38, 3, 7), "float32", encode_tensor("t", weights, 38, 1, NoQuantizer(dtype), None, 16))
    for name in CODERS:
        matrix = sparse if name == "gaps" else weights
        coder = CODERS[name](layout="streams") if name == "huffman" else CODERS[name]()
        for quantizer in (KMeans(3), Sign(5)):
            writer.add_coded(f"{quantizer.name}-{name}", (38, 21), "float32", encode_tensor("t", matrix, 38, 2, quantizer, coder, 16))
    for bits in (1, 2, 5, 7):
        writer.add_coded(f"kmeans{bits}", (38, 21), "float32", encode_tensor("t", weights, 38, 1, KMeans(bits), CODERS["packed"](), 16))
    writer.add_coded("uniform8", (38, 21), "float32", encode_tensor("t", weights, 38, 1, Uniform(8), CODERS["rans"](), 16))


def huffman_planes(writer: Writer) -> None:
    weights = waves()
    writer.add_coded("kmeans-packed", (38, 21), "float32", encode_tensor("t", weights, 38, 1, KMeans(3), CODERS["packed"](), 16))
    for bits in (1, 3, 4, 5, 7):
        for groups in (1, 2):
            encoded = encode_tensor("t", weights, 38, groups, KMeans(bits), CODERS["huffman"](layout="planes"), 16)
            writer.add_coded(f"kmeans{bits}-{groups}", (38, 21), "float32", encoded)
    long = np.concatenate([weights, weights[::-1] * 0.3], axis=1)
    writer.add_coded("sign5", (38, 42), "float32", encode_tensor("t", long, 38, 1, Sign(5), CODERS["huffman"](layout="planes"), 40))


def main() -> None:
    for suffix, tensors in (("", every_coder), ("-planes", huffman_planes)):
        path = HERE / f"version{VERSION}{suffix}.edge"
        if path.exists():
            print(f"{path} exists and is golden")
            continue
        with Writer(path, GRAPH, {"source": "tests/golden/make.py"}) as writer:
            writer.add_plain("plain", np.arange(38, dtype=np.int64) - 7)
            tensors(writer)
        with Reader(path) as reader:
            reader.verify()
            np.savez_compressed(path.with_suffix(".npz"), **{name: reader.decode(name) for name in reader.entries})


if __name__ == "__main__":
    main()
