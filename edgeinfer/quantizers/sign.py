"""Smart-DNN+ (Wu et al. 2023): the sign of every weight, and a bucket for what the sign leaves.

The binary quantizer is remapped: the two signs stand for ``c-`` and ``c+``, the means of the negative and of the other weights (the 1-bit
Lloyd-Max quantizer). The signs are a plane of their own, so the network can run on them alone.
The residual against the sign's centroid falls into a bucket, counted outward from zero for both signs, so that the distribution of
buckets is much
the same for both and an entropy coder loses little by not knowing the sign. Under an error bound eps buckets are of equal width 2 eps, as
published. With a number of bits they are the cells of least squared error of each sign (Lloyd-Max): at five bits equal widths lose 2 to
4 dB on real layers, whose weights are heavy tailed, and GoogLeNet six points of accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import UsageError
from .base import (
    BFLOAT_BITS,
    CODEBOOK,
    QUANTIZERS,
    Quantized,
    Quantizer,
    check_bits,
    distinct,
    histogram,
    round_bfloat,
    row_scales,
    slabs,
    squared_error,
)
from .kmeans import least_error

#: symbols are bytes: a sign and at most so many buckets
MOST_BUCKETS = 128


def _cells(points: np.ndarray, width: float, buckets: int) -> np.ndarray:
    """sign + 2 * bucket of each point"""
    bucket = np.minimum(np.abs(points) / width, buckets - 1).astype(np.intp)
    return 2 * bucket + (points >= 0)


@QUANTIZERS.register("sign")
@dataclass
class Sign(Quantizer):
    """Symbol = sign + 2 * bucket; sign 1 is not negative.

    Args:
        bits: 2..8: one of the sign, the others of the bucket, with buckets of least squared error; the largest error is measured, not
            chosen. A pruned tensor keeps a bucket of exactly zero.
        error_bound: instead of ``bits``: no weight is further off than this share of the tensor's standard deviation; buckets cover
            the whole range, as many as needed (at most 128 per sign).
        row_scale: scale each output row by its root mean square; ``None``: with ``bits`` yes, with an ``error_bound`` (layer-wise as
            published) no.
    """

    name: ClassVar[str] = "sign"
    bits: int = 5
    error_bound: float | None = None
    row_scale: bool | None = None

    def __post_init__(self) -> None:
        check_bits(self.bits, 2)
        if self.error_bound is not None and not 0 < self.error_bound <= 10:
            raise UsageError(f"error_bound: expected a share of the standard deviation in (0, 10], found {self.error_bound!r}")
        if self.error_bound is not None and self.row_scale:
            raise UsageError("error_bound: a bound for all weights of a tensor goes without row scales")

    def fit(self, weights: np.ndarray, taps: int = 1, inputs: Sequence[np.ndarray] | None = None) -> Quantized:
        if self.error_bound is not None:
            return self.quantize(weights)  # a weight moved to another value than the nearest could pass the bound
        return super().fit(weights, taps, inputs)

    def quantize(self, weights: np.ndarray) -> Quantized:
        if self.error_bound is not None:
            return self._within_bound(weights, self.error_bound)
        found = self._least_error(weights, row_scales(weights, self.row_scale is not False))
        if found.row_scale is None or distinct(weights, CODEBOOK) is None:
            return found
        # the values of a codebook or grid lie apart with row scales and together without
        return min(found, self._least_error(weights, None), key=lambda quantized: squared_error(weights, quantized))

    def _least_error(self, weights: np.ndarray, scale: np.ndarray | None) -> Quantized:
        found = histogram(weights, scale)
        buckets = 1 << (self.bits - 1)
        table = np.zeros(2 * buckets, np.float32)
        base = np.zeros(2, np.float32)
        edges: list[np.ndarray] = []
        for side, members in enumerate((found.points < 0, found.points >= 0)):
            points, counts = np.abs(found.points[members]), found.counts[members].astype(np.float64)
            if side == 0:
                points, counts = points[::-1], counts[::-1]
            total = counts.sum()
            base[side] = (counts @ points / total if total else 0) * (1 if side else -1)
            zero = side == 1 and found.pruned
            if zero:
                counts = counts.copy()
                counts[0] -= min(found.zeros, counts[0])
                points, counts = points[counts > 0], counts[counts > 0]
            centroids = least_error(points, counts, buckets - zero) if len(points) else np.zeros(1)
            centroids = np.unique(np.append(centroids, 0.0) if zero else centroids).astype(np.float32)
            if self.bits <= BFLOAT_BITS:
                centroids = np.unique(round_bfloat(centroids))
            edges.append((centroids[1:].astype(np.float64) + centroids[:-1]) / 2)
            # buckets that a side does not need repeat its last value
            values = np.append(centroids, np.repeat(centroids[-1:], buckets - len(centroids)))
            table[side::2] = values if side else -values
        symbols = np.empty(weights.shape, np.uint8)
        for rows, part in slabs(weights, scale):
            size = np.abs(part)
            positive = part >= 0
            bucket = np.where(positive, np.searchsorted(edges[1], size), np.searchsorted(edges[0], size))
            symbols[rows] = 2 * bucket + positive
        return Quantized(symbols=symbols, table=table, base_table=base, row_scale=scale)

    def _within_bound(self, weights: np.ndarray, bound: float) -> Quantized:
        reach = float(np.abs(weights).max())
        if not np.isfinite(reach):
            raise UsageError("weights that are infinite or not a number cannot be quantized; use quantizer 'none'")
        eps = bound * float(weights.std(dtype=np.float64))
        # a constant tensor has no deviation: one bucket holds it exactly
        # a hair less than 2 eps leaves room for the rounding of the table to float32
        width = 2 * eps * (1 - 2e-5) if eps > 0 else max(2 * reach, 1.0)
        buckets = int(reach / width) + 1
        if buckets > MOST_BUCKETS:
            raise UsageError(
                f"error_bound {bound}: weights reach {reach / (eps or 1):.1f} bounds from zero, {buckets} buckets; "
                f"at most {MOST_BUCKETS} are possible, use a bound of {bound * buckets / MOST_BUCKETS:.3g} or more"
            )
        symbols = np.empty(weights.shape, np.uint8)
        size = 2 * buckets
        number, total = np.zeros(size), np.zeros(size)
        low, high = np.full(size, np.inf), np.full(size, -np.inf)
        for rows, part in slabs(weights, None):
            cells = _cells(part.astype(np.float64), width, buckets)
            symbols[rows] = cells
            cells, flat = cells.ravel(), part.ravel()
            number += np.bincount(cells, minlength=size)
            total += np.bincount(cells, weights=flat, minlength=size)
            order = np.argsort(cells, kind="stable")
            present, begin = np.unique(cells[order], return_index=True)
            low[present] = np.minimum(low[present], np.minimum.reduceat(flat[order], begin))
            high[present] = np.maximum(high[present], np.maximum.reduceat(flat[order], begin))
        # an empty bucket gets its middle
        middle = (np.arange(size) // 2 + 0.5) * width * np.where(np.arange(size) % 2, 1, -1)
        table = np.where(number > 0, total / np.maximum(number, 1), middle)
        # members of a bucket span at most 2 eps, so some value is within eps of all: the one nearest their mean
        used = number > 0
        low[~used], high[~used] = 0, 0
        centre = (low + high) / 2
        slack = np.maximum(width / 2 * (1 - 1e-6) - (high - low) / 2, 0)
        table[used] = np.clip(table[used], (centre - slack)[used], (centre + slack)[used])
        sides = [(number[s::2].sum(), total[s::2].sum()) for s in (0, 1)]
        base = np.array([t / n if n else 0.0 for n, t in sides], np.float32)
        return Quantized(symbols=symbols, table=table.astype(np.float32), base_table=base)
