"""A uniform grid that contains zero, with an optional dead zone around it.

The step is the one with the least squared error over the tensor's histogram (values beyond the grid are clipped to its ends), or given in
units of the rows' root mean square: a coarse step with many bits and an entropy coder (``huffman``, ``rans``) is the rate-minded choice
(EntroLLM, DeepCABAC), since only the symbols that occur cost anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import UsageError
from .base import BFLOAT_BITS, QUANTIZERS, Histogram, Quantized, Quantizer, check_bits, histogram, round_bfloat, row_scales, slabs


def _levels(points: np.ndarray, step: float, zero: int, levels: int, dead_zone: float) -> np.ndarray:
    """Grid index of each point, float64, 0 is the value zero."""
    index = np.clip(np.rint(points / step), -zero, levels - 1 - zero)
    if dead_zone:
        index[np.abs(points) < (0.5 + dead_zone / 2) * step] = 0
    return index


def _best_step(found: Histogram, zero: int, levels: int, dead_zone: float) -> float:
    """Step of least squared error: a coarse geometric search, then a fine one around its best."""
    reach = max(found.points[-1] / max(levels - 1 - zero, 1), -found.points[0] / max(zero, 1))
    if reach <= 0:
        return 1.0

    def error(step: float) -> float:
        return float(found.counts @ (_levels(found.points, step, zero, levels, dead_zone) * step - found.points) ** 2)

    coarse = reach * np.geomspace(1.0, 0.02, 40)
    best = coarse[int(np.argmin([error(step) for step in coarse]))]
    fine = best * np.geomspace(1.1, 1 / 1.1, 21)
    return float(fine[int(np.argmin([error(step) for step in fine]))])


@QUANTIZERS.register("uniform")
@dataclass
class Uniform(Quantizer):
    """Symbol ``i`` is worth ``(i - zero) * step``.

    Args:
        bits: 2..8; the grid has 2^bits values.
        dead_zone: how much wider the cell of zero is, in steps: values below ``(1 + dead_zone) / 2`` steps become zero.
        step: in units of the root mean square of a row (of the tensor without row scales); ``None``: least squared error.
        row_scale: scale each output row by its root mean square.
    """

    name: ClassVar[str] = "uniform"
    bits: int = 8
    dead_zone: float = 0.0
    step: float | None = None
    row_scale: bool = True

    def __post_init__(self) -> None:
        check_bits(self.bits, 2)
        if not 0 <= self.dead_zone <= 4:
            raise UsageError(f"dead_zone: expected 0..4 steps, found {self.dead_zone!r}")
        if self.step is not None and not 1e-4 <= self.step <= 100:
            raise UsageError(f"step: expected 0.0001..100 times the root mean square, found {self.step!r}")

    def quantize(self, weights: np.ndarray) -> Quantized:
        scale = row_scales(weights, self.row_scale)
        found = histogram(weights, scale)
        levels = 1 << self.bits
        # zero lies where it splits the grid as it splits the bulk of the weights
        rank = np.cumsum(found.counts)
        low, high = (float(found.points[np.searchsorted(rank, share * rank[-1])]) for share in (0.001, 0.999))
        low, high = min(low, 0.0), max(high, 0.0)
        zero = int(np.clip(round(levels * -low / (high - low)), 0, levels - 1)) if high > low else levels // 2
        if self.step is None:
            step = _best_step(found, zero, levels, self.dead_zone)
        else:
            step = self.step * float(np.sqrt(found.counts @ found.points**2 / found.total)) or 1.0
        step = float(np.float32(step))
        table = (np.arange(levels, dtype=np.float32) - np.float32(zero)) * np.float32(step)
        if self.bits <= BFLOAT_BITS:
            table = round_bfloat(table)
        symbols = np.empty(weights.shape, np.uint8)
        for rows, part in slabs(weights, scale):
            symbols[rows] = _levels(part, step, zero, levels, self.dead_zone) + zero
        return Quantized(symbols=symbols, table=table, row_scale=scale)
