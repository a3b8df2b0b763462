"""Makes the golden files of the current format version: ``python tests/golden/make.py``.

Run it once per version of the format, by hand, and commit what it makes; a golden file is never made again, it is what old files look like.
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


def main() -> None:
    path = HERE / f"version{VERSION}.edge"
    if path.exists():
        raise SystemExit(f"{path} exists and is golden")
    graph = Graph(
        "golden",
        (TensorSpec("x", "float32", ("N", 21)),),
        (TensorSpec("y", "float32", ("N", 38)),),
        (Node("Gemm", "fc", ("x", "kmeans-packed", "plain"), ("y",), {"activation": "LeakyRelu", "alpha": 0.1}),),
        "N",
        ("a note",),
    )
    # a wave that needs no random numbers; two blocks, two chunks, rows of different spread
    i = np.arange(38 * 21)
    weights = (np.sin(i * 0.7) * np.cos(i * 0.013) * (1 + i // 21 % 5)).astype(np.float32).reshape(38, 21)
    sparse = np.where(np.abs(weights) > 1.9, weights, 0).astype(np.float32)
    with Writer(path, graph, {"source": "tests/golden/make.py"}) as writer:
        writer.add_plain("plain", np.arange(38, dtype=np.int64) - 7)
        for dtype in ("float32", "float16", "bfloat16"):
            writer.add_coded(f"none-{dtype}", (38, 3, 7), "float32", encode_tensor("t", weights, 38, 1, NoQuantizer(dtype), None, 16))
        for name in CODERS:
            matrix = sparse if name == "gaps" else weights
            for quantizer in (KMeans(3), Sign(5)):
                encoded = encode_tensor("t", matrix, 38, 2, quantizer, CODERS[name](), 16)
                writer.add_coded(f"{quantizer.name}-{name}", (38, 21), "float32", encoded)
        for bits in (1, 2, 5, 7):
            writer.add_coded(f"kmeans{bits}", (38, 21), "float32", encode_tensor("t", weights, 38, 1, KMeans(bits), CODERS["packed"](), 16))
        writer.add_coded("uniform8", (38, 21), "float32", encode_tensor("t", weights, 38, 1, Uniform(8), CODERS["rans"](), 16))
    with Reader(path) as reader:
        reader.verify()
        np.savez_compressed(path.with_suffix(".npz"), **{name: reader.decode(name) for name in reader.entries})


if __name__ == "__main__":
    main()
