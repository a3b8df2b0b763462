"""Fixed width, 1 to 8 bits, in fields that vector units unpack with one shift; see ``cython/kernels/decode_packed.c``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..kernels.encode import pack
from .base import CODERS, ROW_BLOCK, Coder, Plane, Tiles, padded_rows


@CODERS.register("packed")
@dataclass
class Packed(Coder):
    """As many bits per symbol as the alphabet needs."""

    name: ClassVar[str] = "packed"

    def encode_tiles(self, tiles: Tiles) -> Plane:
        layout, bits = tiles.layout, tiles.bits
        out = np.zeros(layout.weights // 8 * bits, np.uint8)
        symbols = tiles.symbols.reshape(layout.groups, -1)
        packed = out.reshape(layout.groups, -1)
        whole = layout.full_blocks * ROW_BLOCK * layout.k
        for group in range(layout.groups):
            if whole:
                pack(symbols[group, :whole], ROW_BLOCK, bits, packed[group, : whole // 8 * bits])
            if layout.tail:
                pack(symbols[group, whole:], padded_rows(layout.tail), bits, packed[group, whole // 8 * bits :])
        return Plane("packed", bits, 0, 0, out)

    def size_bits(self, tiles: Tiles) -> float:
        return float(tiles.layout.weights * tiles.bits)

    def cycles(self, tiles: Tiles) -> float:
        return 0.2
