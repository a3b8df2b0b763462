"""What every quantizer ends in: a symbol per weight, a small table, and a scale per output row.

A decoded weight is ``table[symbol] * row_scale[row]`` in float32. Row scales are the root mean square of the row, rounded to float16 before
they are used, so the stated errors are those of the decoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import UsageError
from ..registry import Registry

#: bins of the histograms that stand for the weights of a tensor: with 2^16 the optimum moves by less than float16 rounding of scales does
BINS = 1 << 16
#: weights handled at a time, so that temporaries stay small beside the tensor
SLAB = 1 << 20
#: up to so many bits a table is rounded to bfloat16: 0.2 % of a value, while the cells are at least 5 % wide, and it is decoded faster
BFLOAT_BITS = 6
#: a tensor of so many distinct values was quantized before
CODEBOOK = 256
#: share of exact zeros from which a tensor counts as pruned and zero gets a symbol of its own
PRUNED = 0.01


@dataclass(frozen=True)
class Quantized:
    """A quantized matrix.

    Attributes:
        symbols: uint8 (rows, k), or ``None`` for floats kept as they are.
        table: float32, value of each symbol (in units of the row scale); with two planes, symbol = sign + 2 * bucket.
        base_table: float32 (2), values of the sign alone, or ``None`` unless there are two planes.
        row_scale: float16 (rows), or ``None``: all 1.
        values: float32, float16 or uint16 (bfloat16) (rows, k), or ``None``.
    """

    symbols: np.ndarray | None = None
    table: np.ndarray | None = None
    base_table: np.ndarray | None = None
    row_scale: np.ndarray | None = None
    values: np.ndarray | None = None

    def decode(self, first: int = 0, last: int | None = None) -> np.ndarray:
        """Rows ``first`` to ``last`` as the decoders give them: float32."""
        if self.values is not None:
            part = self.values[first:last]
            if part.dtype == np.uint16:
                return (part.astype(np.uint32) << 16).view(np.float32)
            return part.astype(np.float32)
        assert self.table is not None and self.symbols is not None
        out = self.table[self.symbols[first:last]]
        if self.row_scale is not None:
            out = out * self.row_scale[first:last, None].astype(np.float32)
        return out


@dataclass
class Quantizer:
    """Base of quantizers. Subclasses are registered in ``QUANTIZERS`` under :attr:`name`; constructor keywords are the stored form."""

    name: ClassVar[str] = ""

    def options(self) -> dict[str, Any]:
        """Constructor keywords that make this quantizer again."""
        return dict(vars(self))

    def quantize(self, weights: np.ndarray) -> Quantized:
        """Quantize a float32 (rows, k) matrix. Raises UsageError where it holds infinities or NaN."""
        raise NotImplementedError

    def fit(self, weights: np.ndarray, taps: int = 1, inputs: Sequence[np.ndarray] | None = None) -> Quantized:
        """:meth:`quantize`, then errors that cancel: in the outputs for the inputs that are known (:mod:`edgeinfer.quantizers.compensate`),
        else within rows (:mod:`edgeinfer.quantizers.balance`).

        Args:
            weights: float32 (rows, k); k is ordered [taps][channels].
            taps: spatial taps of a convolution.
            inputs: for each equal group of rows, float32 (n, k): what the rows are multiplied with.
        """
        from .balance import balance
        from .compensate import compensate

        quantized = self.quantize(weights)
        return balance(weights, quantized, taps) if inputs is None else compensate(weights, quantized, inputs)


QUANTIZERS: Registry[Quantizer] = Registry("quantizer")


def round_bfloat(values: np.ndarray) -> np.ndarray:
    """float32 values rounded to the nearest bfloat16, ties to even; still float32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def check_bits(bits: int, least: int) -> None:
    """Raise UsageError unless ``bits`` is in least..8."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not least <= bits <= 8:
        raise UsageError(f"bits: expected {least}..8, found {bits!r}")


def row_scales(weights: np.ndarray, wanted: bool) -> np.ndarray | None:
    """Root mean square of each row relative to the largest, float16 (0 for a row of zeros); ``None`` where not wanted or useless."""
    if not wanted or len(weights) == 1:
        return None
    square = np.empty(len(weights))
    for rows, part in _row_slabs(weights):
        square[rows] = np.einsum("ij,ij->i", part, part, dtype=np.float64)
    rms = np.sqrt(square / weights.shape[1])
    most = float(rms.max())
    if most == 0 or not np.isfinite(most):
        return None  # the histogram refuses what is not finite
    # float16 is normal from 2^-14 on; a row that is smaller than that beside the others needs no fine steps
    return np.where(rms > 0, np.maximum(rms / most, 2.0**-14), 0).astype(np.float16)


def _row_slabs(weights: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    step = max(1, SLAB // weights.shape[1])
    for first in range(0, len(weights), step):
        rows = slice(first, min(first + step, len(weights)))
        yield rows, weights[rows]


def slabs(weights: np.ndarray, scale: np.ndarray | None) -> Iterator[tuple[slice, np.ndarray]]:
    """(rows, weights divided by their row's scale) in pieces of whole rows."""
    for rows, part in _row_slabs(weights):
        if scale is not None:
            divisor = scale[rows].astype(np.float32)
            part = part / np.where(divisor == 0, np.float32(1), divisor)[:, None]
        yield rows, part


def distinct(weights: np.ndarray, most: int) -> np.ndarray | None:
    """Sorted distinct values of a matrix if there are at most ``most``, else ``None``."""
    flat = weights.ravel()
    known = np.unique(flat[:4096])
    for first in range(0, flat.size, 1 << 20):
        if len(known) > most:
            return None
        part = flat[first : first + (1 << 20)]
        missing = part[known[np.minimum(np.searchsorted(known, part), len(known) - 1)] != part]
        if missing.size:
            known = np.unique(np.concatenate([known, missing]))
    return known if len(known) <= most else None


def squared_error(weights: np.ndarray, quantized: Quantized) -> float:
    """Sum of the squared differences to the decoded weights."""
    step = max(1, SLAB // weights.shape[1])
    total = 0.0
    for first in range(0, len(weights), step):
        part = weights[first : first + step]
        total += float(np.sum(np.square(part - quantized.decode(first, first + len(part)), dtype=np.float64)))
    return total


@dataclass(frozen=True)
class Histogram:
    """Weights as sorted points: their values (float64, means of the bins that are not empty) and how many weights each stands for."""

    points: np.ndarray
    counts: np.ndarray
    zeros: int
    total: int

    @property
    def pruned(self) -> bool:
        return self.zeros >= PRUNED * self.total


def histogram(weights: np.ndarray, scale: np.ndarray | None) -> Histogram:
    """Histogram of scaled weights. Raises UsageError where a weight is not finite."""
    low, high, zeros = np.inf, -np.inf, 0
    for _, part in slabs(weights, scale):
        low, high = min(low, float(part.min())), max(high, float(part.max()))
        zeros += part.size - int(np.count_nonzero(part))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UsageError("weights that are infinite or not a number cannot be quantized; use quantizer 'none'")
    counts = np.zeros(BINS, np.int64)
    sums = np.zeros(BINS)
    width = (high - low) / BINS
    if width <= np.finfo(np.float64).tiny:
        return Histogram(np.array([low]), np.array([weights.size]), zeros, weights.size)
    for _, part in slabs(weights, scale):
        flat = part.ravel()
        bins = np.minimum(((flat - np.float64(low)) / width).astype(np.int32), BINS - 1)
        counts += np.bincount(bins, minlength=BINS)
        sums += np.bincount(bins, weights=flat, minlength=BINS)
    used = counts > 0
    return Histogram(sums[used] / counts[used], counts[used], zeros, weights.size)


def assign(weights: np.ndarray, scale: np.ndarray | None, table: np.ndarray) -> np.ndarray:
    """Symbol of the nearest value of a sorted table for every weight: uint8 (rows, k)."""
    middle = ((table[1:].astype(np.float64) + table[:-1]) / 2).astype(np.float32)
    out = np.empty(weights.shape, np.uint8)
    for rows, part in slabs(weights, scale):
        out[rows] = np.searchsorted(middle, part.ravel()).reshape(part.shape)
    return out
