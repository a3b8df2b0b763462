"""Weight sharing of Deep Compression (Han et al. 2016): one-dimensional k-means over the weights of a tensor.

Centroids start evenly spaced over the range, which keeps one for the rare large weights, and are moved by Lloyd's algorithm on a fine
histogram. Many centroids (6 bits and more) settle slowly from there, so by default a second start, spaced by the cube root of the density
(best for many centroids, Panter and Dite 1951), is tried too and the better result kept. A pruned tensor keeps a centroid of exactly zero;
k-means then runs over the surviving weights.
"""

from __future__ import annotations

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
    assign,
    check_bits,
    distinct,
    histogram,
    round_bfloat,
    row_scales,
    squared_error,
)

#: Lloyd's rounds at most; Gaussian weights and 32 centroids settle after about 300
ROUNDS = 1000


def lloyd(points: np.ndarray, counts: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Centroids (sorted) of weighted sorted points after Lloyd's algorithm; one that loses all its points moves into the costliest cell."""
    number = np.concatenate([[0], np.cumsum(counts, dtype=np.float64)])
    first = np.concatenate([[0], np.cumsum(counts * points)])
    second = np.concatenate([[0], np.cumsum(counts * points**2)])
    if len(points) <= len(centroids):
        return points.astype(np.float64)
    span = points[-1] - points[0]
    for _ in range(ROUNDS):
        edges = np.concatenate([[0], np.searchsorted(points, (centroids[1:] + centroids[:-1]) / 2), [len(points)]])
        weight = np.diff(number[edges])
        mean = np.diff(first[edges]) / np.maximum(weight, 1)
        empty = np.flatnonzero(weight == 0)
        if len(empty):
            cost = np.diff(second[edges]) - weight * mean**2
            cost[np.diff(edges) < 2] = -1
            mean[empty] = centroids[empty]
            for cell, lost in zip(np.argsort(-cost), empty, strict=False):
                if cost[cell] <= 0:
                    break
                low, high = points[edges[cell]], points[edges[cell + 1] - 1]
                mean[lost] = mean[cell] + (high - mean[cell]) / 2
                mean[cell] -= (mean[cell] - low) / 2
            mean.sort()
        moved = float(np.abs(mean - centroids).max())
        centroids = mean
        if moved <= 1e-7 * span:
            break
    return centroids


def _starts(points: np.ndarray, counts: np.ndarray, wanted: int, start: str) -> list[np.ndarray]:
    linear = np.linspace(points[0], points[-1], 2 * wanted + 1)[1::2]
    # the density in bins fine enough for its shape and wide enough to hold several weights
    number, edges = np.histogram(points, bins=max(8 * wanted, 64), weights=counts)
    rank = np.concatenate([[0], np.cumsum(np.cbrt(number))])
    density = np.interp(rank[-1] * (np.arange(wanted) + 0.5) / wanted, rank, edges)
    return {"linear": [linear], "density": [density], "best": [linear, density]}[start]


def _squared_error(points: np.ndarray, counts: np.ndarray, centroids: np.ndarray) -> float:
    cell = np.searchsorted((centroids[1:] + centroids[:-1]) / 2, points)
    return float(counts @ (points - centroids[cell]) ** 2)


def least_error(points: np.ndarray, counts: np.ndarray, wanted: int, start: str = "best") -> np.ndarray:
    """At most ``wanted`` centroids (sorted) of weighted sorted points: the best that Lloyd's algorithm finds from the named starts."""
    settled = [lloyd(points, counts, first) for first in _starts(points, counts, wanted, start)]
    return min(settled, key=lambda centroids: _squared_error(points, counts, centroids))


@QUANTIZERS.register("kmeans")
@dataclass
class KMeans(Quantizer):
    """Symbols are centroids in rising order.

    A tensor of at most 2^bits distinct values is kept exactly, without row scales; one of at most 256 has them where they help.

    Args:
        bits: 1..8; at most 2^bits centroids.
        row_scale: scale each output row by its root mean square.
        start: ``linear`` over the range (Deep Compression), ``density``, or ``best``: the better of both.
    """

    name: ClassVar[str] = "kmeans"
    bits: int = 5
    row_scale: bool = True
    start: str = "best"

    def __post_init__(self) -> None:
        check_bits(self.bits, 1)
        if self.start not in ("linear", "density", "best"):
            raise UsageError(f"start: expected linear, density or best, found {self.start!r}")

    def quantize(self, weights: np.ndarray) -> Quantized:
        known = distinct(weights, CODEBOOK)
        if known is None or not np.isfinite(known).all():
            return self._fitted(weights, row_scales(weights, self.row_scale))
        if len(known) <= 1 << self.bits:
            return Quantized(symbols=assign(weights, None, known), table=known)
        # the values of a codebook or grid lie apart with row scales and together without
        both = [self._fitted(weights, scale) for scale in (row_scales(weights, self.row_scale), None)]
        return min(both, key=lambda quantized: squared_error(weights, quantized))

    def _fitted(self, weights: np.ndarray, scale: np.ndarray | None) -> Quantized:
        found = histogram(weights, scale)
        points, counts = found.points, found.counts.copy()
        wanted = 1 << self.bits
        if found.pruned:
            wanted -= 1
            # the zeros are in one bin; its other members hardly differ from zero
            counts[np.argmin(np.abs(points))] -= found.zeros
            points, counts = points[counts > 0], counts[counts > 0]
        if wanted == 0:
            table = np.zeros(1)
        else:
            table = least_error(points, counts, wanted, self.start)
        if found.pruned:
            table = np.append(table, 0.0)
        table = table.astype(np.float32)
        if self.bits <= BFLOAT_BITS:
            table = round_bfloat(table)
        table = np.unique(table)
        return Quantized(symbols=assign(weights, scale, table), table=table, row_scale=scale)
