"""Canonical Huffman codes of limited length; tiles of four streams, see ``cython/kernels/decode_huffman.c``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..kernels.encode import huffman
from .base import CODERS, Coder, Plane, Tiles, offsets

#: longest code: decoders look up 11 bits at once, a table of 16 KiB
LONGEST = 11


def code_lengths(counts: np.ndarray, longest: int = LONGEST) -> np.ndarray:
    """Optimal lengths of at most ``longest`` bits by package-merge (Larmore and Hirschberg 1990): uint8, 0 for symbols that do not occur.

    A single symbol gets one bit.
    """
    used = np.flatnonzero(counts)
    lengths = np.zeros(len(counts), np.uint8)
    if len(used) == 1:
        lengths[used] = 1
        return lengths
    # a package is (weight, symbols in it); the cheapest n - 1 packages of the last round hold symbol s lengths[s] times
    leaves = sorted((int(counts[s]), (int(s),)) for s in used)
    packages: list[tuple[int, tuple[int, ...]]] = []
    for _ in range(longest):
        merged = sorted(leaves + packages)
        packages = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(merged[::2], merged[1::2], strict=False)]
    for _, symbols in packages[: len(used) - 1]:
        for s in symbols:
            lengths[s] += 1
    return lengths


def canonical_codes(lengths: np.ndarray) -> np.ndarray:
    """Codes by length, then by symbol, bits reversed (the first bit of a code is the lowest): uint32."""
    codes = np.zeros(256, np.uint32)
    code = 0
    for n in range(1, int(lengths.max()) + 1):
        for s in np.flatnonzero(lengths == n):
            codes[s] = int(format(code, f"0{n}b")[::-1], 2)
            code += 1
        code <<= 1
    return codes


@CODERS.register("huffman")
@dataclass
class Huffman(Coder):
    """One code per tensor, stored as code lengths of four bits."""

    name: ClassVar[str] = "huffman"

    def encode_tiles(self, tiles: Tiles) -> Plane:
        layout = tiles.layout
        lengths = code_lengths(tiles.counts)
        bits = int(tiles.counts @ lengths)
        # a stream ends in a started byte, a tile has a head of 6 bytes; 16 bytes behind for the encoder's last stores
        out = np.empty(bits // 8 + layout.tiles * 10 + 16, np.uint8)
        at = np.empty(layout.tiles + 1, np.int64)
        size = huffman(tiles.symbols, layout.starts, layout.stream_starts, canonical_codes(lengths), lengths, out, at)
        stored = np.append(lengths[: tiles.alphabet], np.uint8(0))[: (tiles.alphabet + 1) // 2 * 2].reshape(-1, 2)
        model = (stored[:, 0] | stored[:, 1] << 4).astype(np.uint8)
        return Plane("huffman", tiles.bits, 4, int(lengths.max()), out[:size].copy(), offsets(at), model)

    def size_bits(self, tiles: Tiles) -> float:
        # four streams lose half a byte each
        return float(tiles.counts @ code_lengths(tiles.counts)) + tiles.layout.tiles * (32 + 48 + 16) + 4 * tiles.alphabet
