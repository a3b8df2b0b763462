"""Measures the rates of this device: small layers of every kind are timed, and the rates that explain the times best are kept.

A layer's time is taken to be the sum over the terms of :data:`edgeinfer.runtime.profile.TERMS` of work / rate. The layers differ in
the proportions of their work, so the times determine the rates: least squares of the relative error, rates not negative.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..coders import CODERS
from ..coders.tensor import Quantizer, encode_tensor
from ..container import coded_tensor
from ..errors import UsageError
from ..kernels.codec import CodedTensor
from ..kernels.program import ACTIVATIONS, ALGORITHMS, Program
from ..ops import Step
from ..ops.conv import algorithms
from ..quantizers.none import NoQuantizer
from ..quantizers.uniform import Uniform
from ..runtime import profile as rates
from ..runtime.board import model_name


@dataclass(frozen=True)
class Layer:
    """A convolution to time: extents, ``bits`` and ``coder`` of its weights, and how it is done. Depthwise where groups = channels > 1."""

    height: int
    width: int
    channels: int
    rows: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    images: int = 1
    coder: str = "packed"
    bits: int = 4
    algorithm: str = "direct"

    @property
    def pad(self) -> int:
        return self.kernel // 2

    @property
    def out(self) -> tuple[int, int]:
        """Output height and width."""
        return tuple((n + 2 * self.pad - self.kernel) // self.stride + 1 for n in (self.height, self.width))  # type: ignore[return-value]

    @property
    def k(self) -> int:
        """Inputs of one output."""
        return self.kernel * self.kernel * self.channels // self.groups

    def step(self) -> Step:
        """The step that computes it."""
        oh, ow = self.out
        ints = {"images": self.images, "in_h": self.height, "in_w": self.width, "in_c": self.channels, "x_ld": self.channels}
        ints |= {"out_h": oh, "out_w": ow, "out_c": self.rows, "y_ld": self.rows, "kh": self.kernel, "kw": self.kernel}
        ints |= {"stride_h": self.stride, "stride_w": self.stride, "dilation_h": 1, "dilation_w": 1}
        ints |= {"pad_top": self.pad, "pad_left": self.pad, "groups": self.groups, "activation": ACTIVATIONS["relu"]}
        ints["algorithm"] = ALGORITHMS[self.algorithm]
        kind = "depthwise" if 1 < self.groups == self.channels == self.rows else "conv"
        return Step(kind, {"x": "x", "y": "y"}, ints, {}, weights="w")

    def weights(self) -> CodedTensor:
        """Random weights (normal, unit gain) through the real quantizer and coder."""
        values = np.random.default_rng(0).standard_normal((self.rows, self.k)).astype(np.float32) / np.float32(np.sqrt(self.k))
        quantizer: Quantizer = NoQuantizer() if self.coder == "raw" else Uniform(bits=self.bits)
        groups = 1 if self.step().kind == "depthwise" else self.groups
        encoded = encode_tensor("w", values, self.rows, groups, quantizer, CODERS[self.coder]())
        return coded_tensor("w", values.shape, encoded)


def aligned(nbytes: int) -> np.ndarray:
    """Zeroed bytes at an address that is a multiple of 64."""
    memory = np.zeros(nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + nbytes]


def least_time(program: Program, threads: int, seconds: float) -> float:
    """Least seconds of a run of ``program``, repeated for ``seconds`` and at least three times."""
    scratch = aligned(program.scratch_bytes * threads)
    program.set_scratch(scratch.ctypes.data, program.scratch_bytes)
    least, runs, end = float("inf"), 0, time.perf_counter() + seconds
    while runs < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        program.run(0, len(program), threads)
        least = min(least, time.perf_counter() - start)
        runs += 1
    return least


def time_layer(layer: Layer, kernels: str, threads: int = 1, seconds: float = 0.1) -> float:
    """Least seconds of a layer on random inputs."""
    step, weights = layer.step(), layer.weights()
    oh, ow = layer.out
    x, y = aligned(layer.images * layer.height * layer.width * layer.channels * 4), aligned(layer.images * oh * ow * layer.rows * 4)
    x.view(np.float32)[:] = np.random.default_rng(1).standard_normal(x.nbytes // 4)
    program = Program(kernels)
    program.set_slot(0, x.ctypes.data, x.nbytes)
    program.set_slot(1, y.ctypes.data, y.nbytes)
    program.append(step.kind, {"x": (0, 0), "y": (1, 0)}, step.ints, {}, weights)
    return least_time(program, threads, seconds)


def _time_bytes(kernels: str, seconds: float) -> tuple[dict[str, float], float]:
    rows, cols = 3136, 256
    x, y = aligned(rows * cols * 4), aligned(rows * cols * 4)
    program = Program(kernels)
    program.set_slot(0, x.ctypes.data, x.nbytes)
    program.set_slot(1, y.ctypes.data, y.nbytes)
    ints = {"activation": ACTIVATIONS["relu"], "rows": rows, "cols": cols, "x_ld": cols, "y_ld": cols}
    program.append("unary", {"x": (0, 0), "y": (1, 0)}, ints, {})
    return rates.amounts(Step("unary", {}, ints), None), least_time(program, 1, seconds)


def layers() -> list[Layer]:
    """What is timed: shapes of common networks, and for every term some in which it weighs much."""
    found = [
        Layer(28, 28, 128, 128, 3),
        Layer(14, 14, 256, 256, 3),
        Layer(28, 28, 64, 64, 3, 2),
        Layer(28, 28, 64, 256),
        Layer(14, 14, 1024, 256),
        Layer(56, 56, 3, 64, 3),
        Layer(112, 112, 3, 64, 7, 2),
        Layer(56, 56, 96, 96, 3, 1, 96),
        Layer(28, 28, 192, 192, 3, 1, 192),
        Layer(56, 56, 96, 96, 3, 2, 96),
    ]
    found += [Layer(1, n, 512, 512, coder=coder) for coder in CODERS for n in (6, 48)]
    shapes = [(56, 64, 64, 3), (28, 128, 128, 3), (14, 256, 256, 3), (7, 512, 512, 3), (28, 32, 128, 3), (28, 128, 32, 3), (28, 48, 96, 5)]
    for size, channels, rows, kernel in (*shapes, (14, 32, 96, 5)):
        layer = Layer(size, size, channels, rows, kernel)
        found += [Layer(size, size, channels, rows, kernel, algorithm=name) for name in algorithms(layer.step())[1:]]
    return found


def fit(work: Sequence[dict[str, float]], seconds: Sequence[float], fallback: rates.Profile) -> dict[str, float]:
    """Rates by term that explain the times best; a term that no layer determines keeps the proportion it has in ``fallback``."""
    terms = list(rates.TERMS)
    times = np.array(seconds)
    # unknowns are seconds per unit in parts of the fallback's, equations are relative: all numbers are near 1
    matrix = np.array([[w.get(term, 0.0) / fallback.rates[term] for term in terms] for w in work]) / times[:, None]
    used = matrix.any(axis=0)
    while True:
        solution = np.zeros(len(terms))
        solution[used] = np.linalg.lstsq(matrix[:, used], np.ones(len(times)), rcond=None)[0]
        negative = solution < 0
        if not negative.any():
            break
        used &= ~negative
    slowness = float(np.median(solution[solution > 0])) if (solution > 0).any() else 1.0
    return {term: fallback.rates[term] / (part if part > 0 else slowness) for term, part in zip(terms, solution, strict=True)}


def measure(
    kernels: str, seconds: float = 0.1, progress: Callable[[int, int, str], None] | None = None
) -> tuple[rates.Profile, list[tuple[Layer, float, float]]]:
    """The profile of this device with a kernel variant on one thread, and (layer, measured, explained seconds) of every timed layer.

    Args:
        seconds: time given to each layer.
        progress: called with (layers done, layers, what).
    """
    if seconds <= 0:
        raise UsageError(f"time per layer: expected more than 0 seconds, found {seconds}")
    todo = layers()
    work, times = [], []
    for index, layer in enumerate(todo):
        if progress is not None:
            progress(index, len(todo), layer.algorithm)
        work.append(rates.amounts(layer.step(), layer, layer.algorithm))
        times.append(time_layer(layer, kernels, 1, seconds))
    extra, taken = _time_bytes(kernels, seconds)
    fallback = rates.BUILT_IN[kernels]
    found = rates.Profile(kernels, model_name() or "this device", fit([*work, extra], [*times, taken], fallback))
    return found, [(layer, t, found.seconds(w)) for layer, t, w in zip(todo, times, work, strict=True)]
