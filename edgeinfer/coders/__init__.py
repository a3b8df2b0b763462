"""Symbols <-> bytes, in tiles that are decoded independently. Encoders here; decoders in ``cython/kernels/decode*.c``."""

from __future__ import annotations

from .base import CODERS, K_CHUNK, Coder, Plane, TileLayout, Tiles, default_k_chunk
from .gaps import Gaps
from .huffman import Huffman
from .packed import Packed
from .rans import Rans
from .raw import Raw
from .tensor import Encoded, encode_tensor, smallest

__all__ = [
    "CODERS",
    "Coder",
    "Encoded",
    "Gaps",
    "Huffman",
    "K_CHUNK",
    "Packed",
    "Plane",
    "Rans",
    "Raw",
    "TileLayout",
    "Tiles",
    "default_k_chunk",
    "encode_tensor",
    "smallest",
]
