"""Speed of the weighted kernels, layer by layer: least time of many runs, arithmetic rate, and weights per second.

    python benchmarks/kernels.py --kernels avx2 --threads 1 --bits 4 --coder packed [--only fc]
    python benchmarks/kernels.py --coders           ceilings of the machine, then every coder: bits per weight against weights per second

Weights are random; the coded layers go through the real quantizer and coder, so decoding is part of every figure.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from edgeinfer.coders import CODERS, Coder
from edgeinfer.coders.tensor import encode_tensor
from edgeinfer.container import coded_tensor
from edgeinfer.kernels.codec import CodedTensor
from edgeinfer.kernels.program import Program, available_kernels
from edgeinfer.quantizers import QUANTIZERS, Quantizer

# name: images, height, width, input channels, output channels, kernel, stride, pad, groups
LAYERS = {
    "conv 3x3 64 at 56": (1, 56, 56, 64, 64, 3, 1, 1, 1),
    "conv 3x3 128 at 28": (1, 28, 28, 128, 128, 3, 1, 1, 1),
    "conv 3x3 256 at 14": (1, 14, 14, 256, 256, 3, 1, 1, 1),
    "conv 3x3 512 at 7": (1, 7, 7, 512, 512, 3, 1, 1, 1),
    "conv 3x3/2 128-256 at 56": (1, 56, 56, 128, 256, 3, 2, 1, 1),
    "conv 1x1 64-256 at 56": (1, 56, 56, 64, 256, 1, 1, 0, 1),
    "conv 1x1 256-64 at 56": (1, 56, 56, 256, 64, 1, 1, 0, 1),
    "conv 1x1 1024-256 at 14": (1, 14, 14, 1024, 256, 1, 1, 0, 1),
    "conv 1x1 2048-512 at 7": (1, 7, 7, 2048, 512, 1, 1, 0, 1),
    "conv 1x1 16-96 at 112": (1, 112, 112, 16, 96, 1, 1, 0, 1),
    "conv 1x1 144-24 at 56": (1, 56, 56, 144, 24, 1, 1, 0, 1),
    "first 7x7/2 3-64 at 224": (1, 224, 224, 3, 64, 7, 2, 3, 1),
    "first 3x3 3-64 at 224": (1, 224, 224, 3, 64, 3, 1, 1, 1),
    "first 3x3/2 3-32 at 224": (1, 224, 224, 3, 32, 3, 2, 1, 1),
    "conv 5x5 96-256 in 2 groups at 27": (1, 27, 27, 96, 256, 5, 1, 2, 2),
    "depthwise 3x3 32 at 112": (1, 112, 112, 32, 32, 3, 1, 1, 32),
    "depthwise 3x3/2 96 at 112": (1, 112, 112, 96, 96, 3, 2, 1, 96),
    "depthwise 3x3 384 at 14": (1, 14, 14, 384, 384, 3, 1, 1, 384),
    "fc 9216-4096": (1, 1, 1, 9216, 4096, 1, 1, 0, 1),
    "fc 2048-1000": (1, 1, 1, 2048, 1000, 1, 1, 0, 1),
    "fc 4096-4096 of 4": (4, 1, 1, 4096, 4096, 1, 1, 0, 1),
    "fc 4096-4096 of 16": (16, 1, 1, 4096, 4096, 1, 1, 0, 1),
}


def aligned(nbytes: int) -> np.ndarray:
    """Bytes at an address that is a multiple of 64."""
    memory = np.zeros(nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + nbytes]


def measure(shape: tuple[int, ...], kernels: str, threads: int, bits: int, coder: str, seconds: float) -> tuple[float, float, float]:
    """Least seconds of a run, floating point operations and weights of a layer."""
    n, h, w, c, o, kernel, stride, pad, groups = shape
    depthwise = groups == c
    oh, ow, k = (h + 2 * pad - kernel) // stride + 1, (w + 2 * pad - kernel) // stride + 1, kernel * kernel * c // groups
    values = np.random.default_rng(0).standard_normal((o, k)).astype(np.float32) / np.float32(np.sqrt(k))
    quantizer = QUANTIZERS["none"]() if coder == "raw" else QUANTIZERS["uniform"](bits=bits)
    encoded = encode_tensor("w", values, o, 1 if depthwise else groups, quantizer, CODERS[coder]())
    weights = coded_tensor("w", values.shape, encoded)
    x, y = aligned(n * h * w * c * 4), aligned(n * oh * ow * o * 4)
    x.view(np.float32)[:] = np.random.default_rng(1).standard_normal(n * h * w * c)
    program = Program(kernels)
    program.set_slot(0, x.ctypes.data, x.nbytes)
    program.set_slot(1, y.ctypes.data, y.nbytes)
    ints = dict(images=n, in_h=h, in_w=w, in_c=c, x_ld=c, out_h=oh, out_w=ow, out_c=o, y_ld=o, kh=kernel, kw=kernel)
    ints |= dict(stride_h=stride, stride_w=stride, dilation_h=1, dilation_w=1, pad_top=pad, pad_left=pad, groups=groups)
    program.append("depthwise" if depthwise else "conv", {"x": (0, 0), "y": (1, 0)}, ints, {}, weights)
    scratch = aligned(program.scratch_bytes * threads)
    program.set_scratch(scratch.ctypes.data, program.scratch_bytes)
    least, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        program.run(0, 1, threads)
        least = min(least, time.perf_counter() - start)
    return least, 2.0 * n * oh * ow * o * k, float(o * k)


# name: quantizer, share of weights pruned, coder
CODED: dict[str, tuple[Quantizer, float, Coder]] = {
    **{f"packed {bits}": (QUANTIZERS["kmeans"](bits=bits), 0.0, CODERS["packed"]()) for bits in (2, 3, 4, 5, 6)},
    "packed 8, uniform": (QUANTIZERS["uniform"](bits=8), 0.0, CODERS["packed"]()),
    "sign 1 + 3": (QUANTIZERS["sign"](bits=4), 0.0, CODERS["packed"]()),
    "sign 1 + 4": (QUANTIZERS["sign"](bits=5), 0.0, CODERS["packed"]()),
    "huffman 4, planes": (QUANTIZERS["kmeans"](bits=4), 0.0, CODERS["huffman"](layout="planes")),
    "huffman 4, streams": (QUANTIZERS["kmeans"](bits=4), 0.0, CODERS["huffman"](layout="streams")),
    "huffman 5, planes": (QUANTIZERS["kmeans"](bits=5), 0.0, CODERS["huffman"](layout="planes")),
    "sign 1 + 3, huffman": (QUANTIZERS["sign"](bits=4), 0.0, CODERS["huffman"](layout="planes")),
    "rans 4": (QUANTIZERS["kmeans"](bits=4), 0.0, CODERS["rans"]()),
    "gaps 4, 95 % zeros": (QUANTIZERS["kmeans"](bits=4), 0.95, CODERS["gaps"]()),
    "gaps 4, 90 % zeros": (QUANTIZERS["kmeans"](bits=4), 0.9, CODERS["gaps"]()),
    "huffman 4, 90 % zeros": (QUANTIZERS["kmeans"](bits=4), 0.9, CODERS["huffman"](layout="planes")),
    "rans 4, 90 % zeros": (QUANTIZERS["kmeans"](bits=4), 0.9, CODERS["rans"]()),
    "raw float16": (QUANTIZERS["none"](dtype="float16"), 0.0, CODERS["raw"]()),
}


def product_seconds(
    weights: CodedTensor, images: int, kernels: str, threads: int, seconds: float, flush: np.ndarray | None = None
) -> float:
    """Least seconds of a product of ``images`` rows by a coded matrix; ``flush`` is read before each run, so that nothing is cached."""
    rows, k = weights.rows, weights.k
    x, y = aligned(images * k * 4), aligned(images * rows * 4)
    x.view(np.float32)[:] = np.random.default_rng(1).standard_normal(images * k)
    program = Program(kernels)
    program.set_slot(0, x.ctypes.data, x.nbytes)
    program.set_slot(1, y.ctypes.data, y.nbytes)
    ints = dict(images=images, in_h=1, in_w=1, in_c=k, x_ld=k, out_h=1, out_w=1, out_c=rows, y_ld=rows, kh=1, kw=1, groups=1)
    program.append("conv", {"x": (0, 0), "y": (1, 0)}, ints | dict(stride_h=1, stride_w=1, dilation_h=1, dilation_w=1), {}, weights)
    scratch = aligned(program.scratch_bytes * threads)
    program.set_scratch(scratch.ctypes.data, program.scratch_bytes)
    least, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        if flush is not None:
            flush.sum()
        start = time.perf_counter()
        program.run(0, 1, threads)
        least = min(least, time.perf_counter() - start)
    return least


def ceilings(kernels: str) -> None:
    """Read bandwidth by size of what is read (maximum of int32 by NumPy), and the rate of a convolution that suits the kernels."""
    print("| ceiling | |\n|---|---|")
    for kib in (256, 8192, 262144):
        values, best, end = np.ones(kib * 256, np.int32), float("inf"), time.perf_counter() + 0.4
        while time.perf_counter() < end:
            repeats = max(1, 4096 // kib)
            start = time.perf_counter()
            for _ in range(repeats):
                values.max()
            best = min(best, (time.perf_counter() - start) / repeats)
        print(f"| read {kib} KiB | {values.nbytes / best * 1e-9:.0f} GB/s |")
    least, operations, _ = measure((1, 28, 28, 128, 128, 3, 1, 1, 1), kernels, 1, 4, "packed", 1.0)
    print(f"| convolution 3x3, 128 channels | {operations / least * 1e-9:.0f} GFLOP/s |\n", flush=True)


def coders(kernels: str, threads: int, seconds: float, only: str) -> None:
    """Table of all coders: decoding alone and fused products, a small matrix that stays in cache and a large one after a flush."""
    print("| coder | bits per weight | decode | product, 1 row | 4 rows | 1 row, flushed |\n|---|---|---|---|---|---|")
    flush = np.ones(8 << 20)
    random = np.random.default_rng(0)
    for name, (quantizer, pruned, coder) in CODED.items():
        if only not in name:
            continue
        tensors = []
        for rows, k in ((1024, 1024), (4096, 4096)):
            values = random.standard_normal((rows, k), np.float32)
            values[random.random(values.shape, np.float32) < pruned] = 0
            encoded = encode_tensor("w", values, rows, 1, quantizer, coder)
            tensors.append(coded_tensor("w", values.shape, encoded))
        small, large = tensors
        decode = min(small.decode_seconds(kernels) for _ in range(max(3, int(seconds * 200))))
        hot = [product_seconds(small, images, kernels, threads, seconds) for images in (1, 4)]
        cold = product_seconds(large, 1, kernels, threads, 2 * seconds, flush)
        rates = [small.rows * small.k / t * 1e-9 for t in (decode, *hot)] + [large.rows * large.k / cold * 1e-9]
        print(f"| {name} | {encoded.bits_per_weight:.2f} | " + " | ".join(f"{rate:.1f}" for rate in rates) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", default=available_kernels()[0], choices=available_kernels())
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--coder", default="packed", choices=["raw", "packed", "huffman", "rans", "gaps"])
    parser.add_argument("--only", default="", help="part of a layer's name")
    parser.add_argument("--seconds", type=float, default=0.7, help="time given to a layer")
    parser.add_argument("--networks", action="store_true", help="instead: every convolution of whole networks (convolutions.py)")
    parser.add_argument("--coders", action="store_true", help="instead: ceilings of the machine and every coder")
    a = parser.parse_args()
    if a.networks:
        from convolutions import NETWORKS, table

        table(list(NETWORKS), a.kernels, 0.2)
        return
    if a.coders:
        print(f"{a.kernels}, {a.threads} thread(s); Gweights/s\n")
        ceilings(a.kernels)
        coders(a.kernels, a.threads, a.seconds, a.only)
        return
    print(f"{a.kernels}, {a.threads} thread(s), {'float32' if a.coder == 'raw' else f'{a.bits} bits'}, {a.coder}")
    for name, shape in LAYERS.items():
        if a.only in name:
            least, operations, weights = measure(shape, a.kernels, a.threads, a.bits, a.coder, a.seconds)
            print(
                f"{name:36s} {least * 1e3:9.3f} ms {operations / least * 1e-9:8.1f} GFLOP/s {weights / least * 1e-9:7.2f} Gw/s", flush=True
            )


if __name__ == "__main__":
    main()
