"""Batch-1 latency against onnxruntime: same inputs, same thread count, alternating runs (A B A B) in one process, ratio of minima.

python benchmarks/latency.py --bits 4 --threads 1 bvlc_alexnet vgg19 resnet50 squeezenet minilm:16

A name may end in the number of tokens. Names: the light networks of the onnx package, those of ``architectures.py``, the shared models.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import networks  # noqa: E402
import numpy as np  # noqa: E402
import onnxruntime as ort  # noqa: E402
from architectures import ARCHITECTURES, architecture_file  # noqa: E402

import edgeinfer as ei  # noqa: E402

FOLDER = Path(os.environ.get("EDGEINFER_TEST_CACHE") or Path(tempfile.gettempdir()) / "edgeinfer-test-networks")


def files(name: str, quantizer: str, bits: int | None, coder: str | None) -> tuple[Path, Path]:
    """(ONNX, container) of a network; containers are kept beside it until the sources of the compressor change."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if name in networks.LIGHT:
        source = networks.light_network_file(name)
    elif name in ARCHITECTURES:
        source = architecture_file(name, FOLDER)
    else:
        source = FOLDER / f"{name}.onnx"
        if not source.exists():
            import onnx

            onnx.save(networks.load_model(networks.shared_model(name)), source)
    target = FOLDER / f"{name}-{quantizer}-{bits}-{coder}.edge"
    sources = (path for unit in ("compress", "quantizers", "coders") for path in (Path(ei.__file__).parent / unit).rglob("*.py"))
    if not target.exists() or target.stat().st_mtime < max(path.stat().st_mtime for path in sources):
        options = {"bits": bits} if bits else {}
        ei.compress(str(source), str(target), quantizer=quantizer, coder=coder, **options)
    return source, target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[*networks.LIGHT, *ARCHITECTURES, "minilm:128", "minilm:16"])
    parser.add_argument("--quantizer", default="kmeans")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--coder", default="packed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6.0, help="per network and runtime")
    parser.add_argument("--profile", action="store_true", help="time per node of the slowest nodes")
    options = parser.parse_args()
    print(f"{options.threads} thread(s), {options.quantizer}, {options.bits} bits, {options.coder or 'smallest coder'}\n")
    print("| network | edgeinfer ms | onnxruntime ms | ratio of minima | ratio of medians |")
    print("|---|---|---|---|---|")
    for name in options.names:
        name, _, length = name.partition(":")
        source, target = files(name, options.quantizer, options.bits, options.coder)
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = options.threads
        theirs = ort.InferenceSession(str(source), settings, providers=["CPUExecutionProvider"])
        if name in networks.LIGHT or name in ARCHITECTURES:
            feed = {theirs.get_inputs()[0].name: networks.smooth_images(1, (3, 224, 224), 1)}
        else:
            feed = networks.shared_inputs(name, 1, 1, length=int(length or 128))
        ours = ei.InferenceSession(target, threads=options.threads)
        times: tuple[list[float], list[float]] = ([], [])
        end = time.perf_counter() + 2 * options.seconds
        while time.perf_counter() < end:
            for index, session in enumerate((ours, theirs)):
                for _ in range(3):
                    began = time.perf_counter()
                    session.run(None, feed)
                    times[index].append(time.perf_counter() - began)
        mine, other = (np.array(t) * 1e3 for t in times)
        ratios = f"{mine.min() / other.min():.2f} | {np.median(mine) / np.median(other):.2f}"
        print(f"| {name}{' of ' + length if length else ''} | {mine.min():.2f} | {other.min():.2f} | {ratios} |", flush=True)
        if options.profile:
            ours.profiling = True
            ours.run(None, feed)
            ours.run(None, feed)
            for node, op, seconds in sorted(ours.profile(), key=lambda p: -p[2])[:14]:
                print(f"    {seconds * 1e3:8.3f} ms  {op:22} {node}")
        ours.close()


if __name__ == "__main__":
    main()
