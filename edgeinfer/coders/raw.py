"""Elements as they are: floats of the quantizer ``none``, or a byte per symbol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import CODERS, Coder, Plane, TileLayout, Tiles

_KINDS = {"float32": ("raw_f32", 32), "float16": ("raw_f16", 16), "uint16": ("raw_bf16", 16)}


@CODERS.register("raw")
@dataclass
class Raw(Coder):
    """Bytes as they are."""

    name: ClassVar[str] = "raw"

    def encode_tiles(self, tiles: Tiles) -> Plane:
        return Plane("raw_u8", 8, 0, 0, tiles.symbols)

    def size_bits(self, tiles: Tiles) -> float:
        return 8.0 * tiles.layout.weights

    def cycles(self, tiles: Tiles) -> float:
        return 0.2

    def encode_values(self, values: np.ndarray, layout: TileLayout) -> Plane:
        """Encode a (rows, k) matrix of float32, float16 or uint16 (the upper halves of float32: bfloat16)."""
        kind, bits = _KINDS[values.dtype.name]
        return Plane(kind, bits, 0, 0, layout.arrange(values, 0).view(np.uint8))
