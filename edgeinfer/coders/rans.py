"""Range variant of asymmetric numeral systems, interleaved states; tiles: ``cython/kernels/decode_rans.c``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..kernels.encode import rans
from .base import CODERS, Coder, Plane, Tiles, offsets

#: tiles of so many symbols earn 32 states (which cost 0.035 bits per weight), of so many 8 states
LANES = ((16384, 32), (2048, 8), (0, 1))


def frequencies(counts: np.ndarray, bits: int) -> np.ndarray:
    """Frequencies that sum to ``2**bits`` and cost the fewest bits: uint32; a symbol that occurs gets at least 1."""
    total = 1 << bits
    counts = counts.astype(np.float64)
    used = counts > 0
    out = np.where(used, np.maximum(np.rint(counts * total / counts.sum()), 1), 0).astype(np.int64)
    # a unit goes where (or comes from where) the cost in bits changes best
    while (gap := total - int(out.sum())) != 0:
        if gap > 0:
            gain = np.where(used, counts * np.log2((out + 1) / np.maximum(out, 1)), -np.inf)
            out[int(np.argmax(gain))] += 1
        else:
            loss = np.where(out > 1, counts * np.log2(np.maximum(out, 1) / np.maximum(out - 1, 1)), np.inf)
            out[int(np.argmin(loss))] -= 1
    return out.astype(np.uint32)


def cost_bits(counts: np.ndarray, frequency: np.ndarray) -> float:
    """Bits of all symbols under the frequencies."""
    used = counts > 0
    return float(-(counts[used] * np.log2(frequency[used] / frequency.sum())).sum())


@CODERS.register("rans")
@dataclass
class Rans(Coder):
    """One table of frequencies per tensor; total 2^11, or 2^12 where that is smaller."""

    name: ClassVar[str] = "rans"

    @staticmethod
    def lanes(tiles: Tiles) -> int:
        """States per tile, by the size of most tiles."""
        typical = int(np.median(np.diff(tiles.layout.starts)))
        return next(lanes for least, lanes in LANES if typical >= least)

    @staticmethod
    def _best(tiles: Tiles) -> tuple[int, np.ndarray, float]:
        found = []
        for bits in (11, 12):
            frequency = frequencies(tiles.counts, bits)
            found.append((bits, frequency, cost_bits(tiles.counts, frequency)))
        # a table of 2^12 is twice as big in the decoder's cache
        return found[1] if found[1][2] < 0.998 * found[0][2] else found[0]

    def encode_tiles(self, tiles: Tiles) -> Plane:
        layout = tiles.layout
        bits, frequency, _ = self._best(tiles)
        lanes = self.lanes(tiles)
        first = np.concatenate([[0], np.cumsum(frequency)[:-1]]).astype(np.uint32)
        most = int(np.diff(layout.starts).max())
        # a symbol never takes more than one word
        out = np.empty(2 * layout.weights + layout.tiles * lanes * 4, np.uint8)
        at = np.empty(layout.tiles + 1, np.int64)
        size = rans(tiles.symbols, layout.starts, first, frequency, bits, lanes, np.empty(most, np.uint16), out, at)
        model = frequency[: tiles.alphabet].astype("<u2").view(np.uint8)
        return Plane("rans", tiles.bits, lanes, bits, out[:size].copy(), offsets(at), model)

    def size_bits(self, tiles: Tiles) -> float:
        lanes = self.lanes(tiles)
        # of a state's 32 stored bits 16 carry nothing, and some of the others are not filled yet when the tile ends: measured, 18
        return self._best(tiles)[2] + tiles.layout.tiles * (32 + 18 * lanes) + 16 * tiles.alphabet

    def cycles(self, tiles: Tiles) -> float:
        return 3.0
