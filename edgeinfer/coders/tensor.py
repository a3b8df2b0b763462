"""One weight tensor through its quantizer and its coder, ready for :meth:`edgeinfer.container.Writer.add_coded`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from ..errors import UsageError
from .base import CODERS, Coder, Plane, TileLayout, Tiles
from .packed import Packed
from .raw import Raw


class Quantizer(Protocol):
    """What is needed of a quantizer (``edgeinfer.quantizers.base``)."""

    name: ClassVar[str]

    def options(self) -> dict[str, Any]: ...

    def fit(self, weights: np.ndarray, taps: int, inputs: Sequence[np.ndarray] | None) -> Any: ...


@dataclass(frozen=True)
class Encoded:
    """An encoded tensor: what a container entry says about it, and its bytes by part.

    Attributes:
        rows, k, groups, k_chunk: the matrix and its cut.
        quantizer, options, coder: names and constructor keywords.
        max_error: the largest difference of a decoded weight to the original.
        planes: ``coder``, ``bits``, ``lanes``, ``extra`` of each plane.
        parts: name -> array, in the order in which they are stored.
        quantized: what the quantizer gave.
    """

    rows: int
    k: int
    groups: int
    k_chunk: int
    quantizer: str
    options: dict[str, Any]
    coder: str
    max_error: float
    planes: tuple[dict[str, Any], ...]
    parts: dict[str, np.ndarray] = field(repr=False)
    quantized: Any = field(repr=False)

    @property
    def nbytes(self) -> int:
        """Stored bytes without alignment."""
        return sum(part.nbytes for part in self.parts.values())

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / (self.rows * self.k)


#: share of the bits that a coder must save for being three times slower: entropy coding saves 4 % of unpruned k-means symbols and is
#: three times slower than ``packed``, which therefore stays
WORTH = 0.1


def smallest(tiles: Tiles, worth: float = WORTH) -> str:
    """Name of the coder that needs the fewest bits; one that is three times slower (:meth:`~.base.Coder.cycles`) must save ``worth``.

    On pruned tensors that decides between ``gaps``, fast where few entries are left, ``huffman``, and ``rans``, smallest and slowest.
    """
    price = -math.log1p(-worth) / math.log(3)

    def cost(name: str) -> float:
        coder = CODERS[name]()
        return math.log(coder.size_bits(tiles)) + price * math.log(coder.cycles(tiles))

    return min(CODERS, key=cost)


def _largest_error(weights: np.ndarray, quantized: Any) -> float:
    step = max(1, (1 << 20) // weights.shape[1])
    worst = 0.0
    for first in range(0, len(weights), step):
        part = weights[first : first + step]
        worst = max(worst, float(np.abs(quantized.decode(first, first + len(part)).astype(np.float64) - part).max()))
    return worst


def encode_tensor(
    name: str,
    weights: np.ndarray,
    rows: int,
    groups: int,
    quantizer: Quantizer,
    coder: Coder | None = None,
    k_chunk: int | None = None,
    inputs: Sequence[np.ndarray] | None = None,
) -> Encoded:
    """Quantize and encode a tensor.

    Args:
        name: for messages.
        weights: any shape whose C order is (``rows``, k); floating point.
        rows: output rows.
        groups: equal groups of rows (of a grouped convolution), which tiles do not straddle. Depthwise weights (C, kh, kw) are C rows
            in one group: their kernel wants tiles of 32 channels.
        quantizer: instance of a class of ``QUANTIZERS``.
        coder: instance of a class of ``CODERS``, or ``None``: what :func:`smallest` names. Raw floats always take ``raw``.
        k_chunk: inputs of a tile, ``None`` for :func:`~edgeinfer.coders.base.default_k_chunk`.
        inputs: for each group float32 (n, k), what its rows are multiplied with, where that is known.

    Raises:
        UsageError: weights that are empty or not finite, or a coder that cannot hold what the quantizer gives.
    """
    if weights.size == 0 or rows < 1 or weights.size % rows:
        raise UsageError(f"tensor {name!r}: cannot code shape {weights.shape} as {rows} rows")
    matrix = np.ascontiguousarray(weights, np.float32).reshape(rows, -1)
    try:
        taps = math.prod(weights.shape[1:-1]) if weights.ndim > 2 else 1
        quantized = quantizer.fit(matrix, taps, inputs)
        layout = TileLayout.of(rows, matrix.shape[1], groups, k_chunk)
        parts: dict[str, np.ndarray] = {}
        if quantized.values is not None:
            if coder is not None and coder.name != "raw":
                raise UsageError(f"coder {coder.name!r} needs symbols, but quantizer {quantizer.name!r} gives floats; use coder 'raw'")
            raw = Raw()
            coder = raw
            planes = [raw.encode_values(quantized.values, layout)]
        else:
            table, symbols = quantized.table, quantized.symbols
            pad = int(np.argmin(np.abs(table)))
            parts["table"] = table
            if quantized.base_table is None:
                tiles = Tiles.cut(symbols, layout, len(table), pad)
                planes = []
            else:
                parts["base_table"] = quantized.base_table
                planes = [Packed().encode_tiles(Tiles.cut(symbols & np.uint8(1), layout, 2, pad & 1))]
                tiles = Tiles.cut(symbols >> np.uint8(1), layout, len(table) // 2, pad >> 1)
            if quantized.row_scale is not None:
                parts["row_scale"] = quantized.row_scale
            if coder is None:
                coder = CODERS[smallest(tiles)]()
            planes.append(coder.encode_tiles(tiles))
        error = _largest_error(matrix, quantized)
    except UsageError as problem:
        raise UsageError(f"tensor {name!r}: {problem}") from None
    for number, plane in enumerate(planes):
        parts.update(_parts(number, plane))
    return Encoded(
        rows=rows,
        k=matrix.shape[1],
        groups=groups,
        k_chunk=layout.k_chunk,
        quantizer=quantizer.name,
        options=quantizer.options(),
        coder=coder.name,
        max_error=error,
        planes=tuple({"coder": p.coder, "bits": p.bits, "lanes": p.lanes, "extra": p.extra} for p in planes),
        parts=parts,
        quantized=quantized,
    )


def _parts(number: int, plane: Plane) -> dict[str, np.ndarray]:
    parts = {}
    if plane.model is not None:
        parts[f"model{number}"] = plane.model
    if plane.at is not None:
        parts[f"at{number}"] = plane.at
    parts[f"plane{number}"] = plane.payload
    return parts
