"""Smart-DNN+ (Wu et al. 2023): the sign of every weight, and a bucket for what the sign leaves.

The binary quantizer is remapped: the two signs stand for ``c-`` and ``c+``, the means of the negative and of the other weights (the 1-bit
Lloyd-Max quantizer). The signs are a plane of their own, so the network can run on them alone.
The residual against the sign's centroid falls into buckets of equal width 2 eps, counted outward from zero for both signs, so that the
bucket's distribution is the same for both and an entropy coder loses little by not knowing the sign. The value of a bucket is the mean of
its members.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import UsageError
from .base import BFLOAT_BITS, QUANTIZERS, Histogram, Quantized, Quantizer, check_bits, histogram, round_bfloat, row_scales, slabs

#: symbols are bytes: a sign and at most so many buckets
MOST_BUCKETS = 128


def _cells(points: np.ndarray, width: float, buckets: int) -> np.ndarray:
    """sign + 2 * bucket of each point"""
    bucket = np.minimum(np.abs(points) / width, buckets - 1).astype(np.intp)
    return 2 * bucket + (points >= 0)


def _statistics(found: Histogram, width: float, buckets: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number, mean and squared error of the members of each cell."""
    cells = _cells(found.points, width, buckets)
    number = np.bincount(cells, weights=found.counts, minlength=2 * buckets)
    total = np.bincount(cells, weights=found.counts * found.points, minlength=2 * buckets)
    square = np.bincount(cells, weights=found.counts * found.points**2, minlength=2 * buckets)
    mean = total / np.maximum(number, 1)
    return number, mean, square - number * mean**2


def _best_width(found: Histogram, buckets: int) -> float:
    """Bucket width of least squared error when the last bucket takes everything beyond it."""
    reach = float(np.abs(found.points[[0, -1]]).max()) / buckets * (1 + 1e-6)
    if reach <= 0:
        return 1.0
    coarse = reach * np.geomspace(1.0, 0.03, 36)
    best = coarse[int(np.argmin([_statistics(found, width, buckets)[2].sum() for width in coarse]))]
    fine = best * np.geomspace(1.1, 1 / 1.1, 13)
    return float(fine[int(np.argmin([_statistics(found, width, buckets)[2].sum() for width in fine]))])


@QUANTIZERS.register("sign")
@dataclass
class Sign(Quantizer):
    """Symbol = sign + 2 * bucket; sign 1 is not negative.

    Args:
        bits: 2..8: one of the sign, the others of the bucket. The bucket width is that of least squared error; the last bucket holds all
            that lies beyond, so the largest error is measured, not chosen.
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

    def quantize_balanced(self, weights: np.ndarray, taps: int = 1) -> Quantized:
        if self.error_bound is not None:
            return self.quantize(weights)  # a weight moved to its second nearest value could pass the bound
        return super().quantize_balanced(weights, taps)

    def quantize(self, weights: np.ndarray) -> Quantized:
        scale = row_scales(weights, self.error_bound is None and self.row_scale is not False)
        found = histogram(weights, scale)
        reach = float(np.abs(weights).max())
        if self.error_bound is None:
            buckets = 1 << (self.bits - 1)
            width = _best_width(found, buckets)
        else:
            eps = self.error_bound * float(weights.std(dtype=np.float64))
            # a constant tensor has no deviation: one bucket holds it exactly
            # a hair less than 2 eps leaves room for the rounding of the table to float32
            width = 2 * eps * (1 - 2e-5) if eps > 0 else max(2 * reach, 1.0)
            buckets = int(reach / width) + 1
            if buckets > MOST_BUCKETS:
                raise UsageError(
                    f"error_bound {self.error_bound}: weights reach {reach / (eps or 1):.1f} bounds from zero, {buckets} buckets; "
                    f"at most {MOST_BUCKETS} are possible, use a bound of {self.error_bound * buckets / MOST_BUCKETS:.3g} or more"
                )
        symbols = np.empty(weights.shape, np.uint8)
        size = 2 * buckets
        number, total = np.zeros(size), np.zeros(size)
        low, high = np.full(size, np.inf), np.full(size, -np.inf)
        for rows, part in slabs(weights, scale):
            cells = _cells(part.astype(np.float64), width, buckets)
            symbols[rows] = cells
            cells, flat = cells.ravel(), part.ravel()
            number += np.bincount(cells, minlength=size)
            total += np.bincount(cells, weights=flat, minlength=size)
            if self.error_bound is not None:
                order = np.argsort(cells, kind="stable")
                present, begin = np.unique(cells[order], return_index=True)
                low[present] = np.minimum(low[present], np.minimum.reduceat(flat[order], begin))
                high[present] = np.maximum(high[present], np.maximum.reduceat(flat[order], begin))
        # an empty bucket gets its middle
        middle = (np.arange(size) // 2 + 0.5) * width * np.where(np.arange(size) % 2, 1, -1)
        table = np.where(number > 0, total / np.maximum(number, 1), middle)
        if self.error_bound is not None:
            # members of a bucket span at most 2 eps, so some value is within eps of all: the one nearest their mean
            used = number > 0
            low[~used], high[~used] = 0, 0
            centre = (low + high) / 2
            slack = np.maximum(width / 2 * (1 - 1e-6) - (high - low) / 2, 0)
            table[used] = np.clip(table[used], (centre - slack)[used], (centre + slack)[used])
        table = table.astype(np.float32)
        if self.error_bound is None and self.bits <= BFLOAT_BITS:
            table = round_bfloat(table)
        sides = [(number[s::2].sum(), total[s::2].sum()) for s in (0, 1)]
        base = np.array([t / n if n else 0.0 for n, t in sides], np.float32)
        return Quantized(symbols=symbols, table=table, base_table=base, row_scale=scale)
