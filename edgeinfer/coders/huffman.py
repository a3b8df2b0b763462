"""Canonical Huffman codes of limited length; bits in planes (``cython/kernels/decode_planes.c``) or four streams (``decode_huffman.c``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import UsageError
from ..kernels.encode import huffman
from ..kernels.encode import planes as encode_planes
from .base import CODERS, Coder, Plane, Tiles, offsets

#: longest code: decoders look up 11 bits at once, a table of 16 KiB
LONGEST = 11
#: most symbols in use whose planes every vector decoder takes
PLANES_MOST = 32
#: share of bits that codes of fewer depths may cost; on Gaussian weights of 4 bits it buys two depths instead of four
WORTH = 0.02


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
    """Codes by length, then by symbol, the first bit of a code highest: uint32."""
    codes = np.zeros(256, np.uint32)
    code = 0
    for n in range(1, int(lengths.max()) + 1):
        for s in np.flatnonzero(lengths == n):
            codes[s] = code
            code += 1
        code <<= 1
    return codes


def reversed_codes(lengths: np.ndarray) -> np.ndarray:
    """:func:`canonical_codes` with the first bit of a code lowest: uint32."""
    codes = canonical_codes(lengths)
    for s in np.flatnonzero(lengths):
        codes[s] = int(format(codes[s], f"0{lengths[s]}b")[::-1], 2)
    return codes


def short_lengths(counts: np.ndarray) -> np.ndarray:
    """Lengths of the code with the shortest longest code that costs at most ``WORTH`` more bits than the best: decoders of planes take one
    step for every depth between the shortest and the longest code. uint8."""
    best = code_lengths(counts)
    for longest in range(max(1, int(np.count_nonzero(counts) - 1).bit_length()), LONGEST):
        lengths = code_lengths(counts, longest)
        if counts @ lengths <= (1 + WORTH) * (counts @ best):
            return lengths
    return best


@CODERS.register("huffman")
@dataclass
class Huffman(Coder):
    """One code per tensor, stored as code lengths of four bits.

    Args:
        layout: ``"planes"``: bits in planes by depth, decoded 64 symbols at a time by vector units; ``"streams"``: four streams, decoded by
            table; ``"auto"``: planes where the vector decoders can hold the alphabet (``PLANES_MOST`` symbols in use), else streams.

    Raises UsageError for another layout.
    """

    layout: str = "auto"
    name: ClassVar[str] = "huffman"

    def __post_init__(self) -> None:
        if self.layout not in ("auto", "planes", "streams"):
            raise UsageError(f"huffman layout: expected auto, planes or streams, found {self.layout!r}")

    def _in_planes(self, tiles: Tiles) -> bool:
        return self.layout == "planes" or (self.layout == "auto" and int(np.count_nonzero(tiles.counts)) <= PLANES_MOST)

    def _lengths(self, tiles: Tiles) -> np.ndarray:
        return short_lengths(tiles.counts) if self._in_planes(tiles) else code_lengths(tiles.counts)

    def encode_tiles(self, tiles: Tiles) -> Plane:
        layout, planes = tiles.layout, self._in_planes(tiles)
        lengths = self._lengths(tiles)
        bits, longest = int(tiles.counts @ lengths), int(lengths.max())
        # a stream ends in a started byte, a tile has a head of two bytes for each but the last; 16 bytes for the encoder's last stores
        out = np.zeros(bits // 8 + layout.tiles * (3 * LONGEST if planes else 10) + 16, np.uint8)
        at = np.empty(layout.tiles + 1, np.int64)
        if planes:
            shortest = int(lengths[lengths > 0].min())
            rows = np.repeat(layout.block_padded, len(layout.chunk_k))
            size = encode_planes(tiles.symbols, layout.starts, rows, canonical_codes(lengths), lengths, shortest, longest, out, at)
        else:
            size = huffman(tiles.symbols, layout.starts, layout.stream_starts, reversed_codes(lengths), lengths, out, at)
        stored = np.append(lengths[: tiles.alphabet], np.uint8(0))[: (tiles.alphabet + 1) // 2 * 2].reshape(-1, 2)
        model = (stored[:, 0] | stored[:, 1] << 4).astype(np.uint8)
        return Plane("huffman", tiles.bits, 0 if planes else 4, longest, out[:size].copy(), offsets(at), model)

    def size_bits(self, tiles: Tiles) -> float:
        lengths = self._lengths(tiles)
        # an offset, a length for every stream but the last, and half a byte lost by each stream
        depths = int(lengths.max()) - int(lengths[lengths > 0].min())
        tile = 32 + (16 * max(depths - 1, 0) + 4 * depths if self._in_planes(tiles) else 48 + 16)
        return float(tiles.counts @ lengths) + tiles.layout.tiles * tile + 4 * tiles.alphabet

    def cycles(self, tiles: Tiles) -> float:
        lengths = self._lengths(tiles)
        if self._in_planes(tiles):
            return 0.3 + 0.16 * (int(lengths.max()) - int(lengths[lengths > 0].min()))
        # look-ups of 11 bits that give up to six symbols
        return 0.2 + max(0.5, 0.5 * float(tiles.counts @ lengths) / tiles.layout.weights)
