"""Relative index of EIE and Deep Compression: the symbols that are not the commonest one, and how far apart they are.

Tiles: ``cython/kernels/decode_gaps.c``. Han et al. 2016 leave out weights of value zero; here the commonest symbol is left out, which on a
pruned tensor is the zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..kernels.encode import gap_histogram, gaps
from .base import CODERS, Coder, Plane, Tiles, offsets

#: widest gap field tried
WIDEST = 12


@CODERS.register("gaps")
@dataclass
class Gaps(Coder):
    """Entries of a gap and a symbol; the width of the gap is the one that makes the tensor smallest."""

    name: ClassVar[str] = "gaps"

    @staticmethod
    def _best(tiles: Tiles) -> tuple[int, int, int]:
        """(symbol left out, gap bits, entries)"""
        left_out = int(np.argmax(tiles.counts[: tiles.alphabet]))
        counts = np.zeros(int(np.diff(tiles.layout.starts).max()) + 1, np.int64)
        gap_histogram(tiles.symbols, tiles.layout.starts, left_out, counts)
        gap = np.arange(len(counts))
        entries = {bits: int(counts @ (1 + (gap >> bits))) for bits in range(1, WIDEST + 1)}
        width = min(entries, key=lambda bits: (entries[bits] * (bits + tiles.bits), bits))
        return left_out, width, entries[width]

    def encode_tiles(self, tiles: Tiles) -> Plane:
        layout = tiles.layout
        left_out, width, entries = self._best(tiles)
        out = np.empty(entries * (width + tiles.bits) // 8 + layout.tiles * 5 + 16, np.uint8)
        at = np.empty(layout.tiles + 1, np.int64)
        size = gaps(tiles.symbols, layout.starts, left_out, width, tiles.bits, out, at)
        return Plane("gaps", tiles.bits, left_out, width, out[:size].copy(), offsets(at))

    def size_bits(self, tiles: Tiles) -> float:
        _, width, entries = self._best(tiles)
        return float(entries * (width + tiles.bits) + tiles.layout.tiles * (32 + 32 + 4))

    def cycles(self, tiles: Tiles) -> float:
        return 0.2 + 4.0 * self._best(tiles)[2] / tiles.layout.weights
