"""Symbols to bytes: how a matrix of symbols is cut into tiles, and what a coder must give.

The cut is specified in ``cython/kernels/weights.h``: blocks of up to 32 rows that belong to one group, chunks of k, symbols of a tile
ordered [k][row], rows padded to a multiple of 8 with the symbol of the value nearest zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ..errors import UsageError
from ..kernels.encode import histogram, segment
from ..registry import Registry

#: rows of a block, and what the rows of a short block are padded to a multiple of
ROW_BLOCK = 32
ROW_PAD = 8
#: most inputs of a chunk by default: a tile of 16 Ki weights, whose panel of 64 KiB stays in L2
K_CHUNK = 512


def padded_rows(rows: int) -> int:
    """Rows of a block with padding."""
    return math.ceil(rows / ROW_PAD) * ROW_PAD


def default_k_chunk(k: int) -> int:
    """Length of chunks that are at most ``K_CHUNK`` long and about equally long, a multiple of 32 (four segments of whole eights)."""
    chunks = math.ceil(k / K_CHUNK)
    return math.ceil(k / chunks / 32) * 32


@dataclass(frozen=True)
class TileLayout:
    """The cut of a (rows, k) matrix.

    Attributes:
        rows, k, groups: of the matrix; ``groups`` divides ``rows``.
        k_chunk: inputs of a chunk; the last one may be shorter. It fixes the order of additions, so all coders of a tensor share it.
    """

    rows: int
    k: int
    groups: int = 1
    k_chunk: int = K_CHUNK

    def __post_init__(self) -> None:
        if self.rows < 1 or self.k < 1 or self.groups < 1 or self.rows % self.groups:
            raise UsageError(f"a tensor of {self.rows} rows in {self.groups} groups and {self.k} inputs cannot be cut into tiles")
        if not 1 <= self.k_chunk <= 4096:
            raise UsageError(f"k_chunk: expected 1..4096, found {self.k_chunk}")

    @classmethod
    def of(cls, rows: int, k: int, groups: int = 1, k_chunk: int | None = None) -> TileLayout:
        return cls(rows, k, groups, default_k_chunk(k) if k_chunk is None else k_chunk)

    @property
    def group_rows(self) -> int:
        return self.rows // self.groups

    @property
    def full_blocks(self) -> int:
        """Blocks of 32 rows in one group."""
        return self.group_rows // ROW_BLOCK

    @property
    def tail(self) -> int:
        """Rows of the last, short block of a group; 0 where there is none."""
        return self.group_rows % ROW_BLOCK

    @cached_property
    def padded(self) -> int:
        """Padded rows of one group."""
        return self.full_blocks * ROW_BLOCK + padded_rows(self.tail)

    @property
    def weights(self) -> int:
        """Symbols including padding."""
        return self.groups * self.padded * self.k

    @cached_property
    def block_padded(self) -> np.ndarray:
        """Padded rows of every block, int64."""
        one = [ROW_BLOCK] * self.full_blocks + ([padded_rows(self.tail)] if self.tail else [])
        return np.tile(np.asarray(one, np.int64), self.groups)

    @cached_property
    def chunk_k(self) -> np.ndarray:
        """Inputs of every chunk, int64."""
        full, rest = divmod(self.k, self.k_chunk)
        return np.asarray([self.k_chunk] * full + ([rest] if rest else []), np.int64)

    @property
    def tiles(self) -> int:
        return len(self.block_padded) * len(self.chunk_k)

    @cached_property
    def starts(self) -> np.ndarray:
        """First symbol of every tile in tile order, and the end: int64, tiles + 1."""
        sizes = (self.block_padded[:, None] * self.chunk_k[None, :]).ravel()
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    @cached_property
    def stream_starts(self) -> np.ndarray:
        """First symbols of the four segments of every tile, and its end: int64 (tiles, 5)."""
        steps = np.asarray([segment(int(k)) for k in self.chunk_k], np.int64)
        edges = np.minimum(steps[:, None] * np.arange(5), self.chunk_k[:, None])
        sizes = (edges[None] * self.block_padded[:, None, None]).reshape(-1, 5)
        return np.ascontiguousarray(sizes + self.starts[:-1, None])

    def arrange(self, matrix: np.ndarray, pad: Any) -> np.ndarray:
        """Elements of a (rows, k) matrix in tile order, padded with ``pad``: one dimension."""
        out = np.empty((self.groups, self.padded * self.k), matrix.dtype)
        source = matrix.reshape(self.groups, self.group_rows, self.k)
        whole = self.full_blocks * ROW_BLOCK
        if whole:
            blocks = source[:, :whole].reshape(self.groups, self.full_blocks, ROW_BLOCK, self.k)
            for group in range(self.groups):
                out[group, : whole * self.k].reshape(self.full_blocks, self.k, ROW_BLOCK)[:] = blocks[group].transpose(0, 2, 1)
        for group in range(self.groups if self.tail else 0):
            last = out[group, whole * self.k :].reshape(self.k, padded_rows(self.tail))
            last[:, : self.tail] = source[group, whole:].T
            last[:, self.tail :] = pad
        return out.reshape(-1)


@dataclass(frozen=True)
class Tiles:
    """One plane of symbols in tile order, what coders encode.

    Attributes:
        layout: the cut.
        symbols: uint8, ``layout.weights`` of them, each below ``alphabet``.
        alphabet: number of symbols, 1..256.
    """

    layout: TileLayout
    symbols: np.ndarray
    alphabet: int

    @classmethod
    def cut(cls, symbols: np.ndarray, layout: TileLayout, alphabet: int, pad: int = 0) -> Tiles:
        """Tiles of a uint8 (rows, k) matrix. ``pad``: the symbol of the value nearest zero."""
        if not 1 <= alphabet <= 256 or not 0 <= pad < alphabet:
            raise UsageError(f"expected 1..256 symbols and padding by one of them, found {alphabet} and {pad}")
        if symbols.shape != (layout.rows, layout.k) or symbols.dtype != np.uint8:
            raise ValueError(f"expected uint8 symbols ({layout.rows}, {layout.k}), found {symbols.dtype} {symbols.shape}")
        if int(symbols.max()) >= alphabet:
            raise ValueError(f"symbol {int(symbols.max())} in an alphabet of {alphabet}")
        return cls(layout, layout.arrange(symbols, pad), alphabet)

    @cached_property
    def counts(self) -> np.ndarray:
        """How often each of 256 symbols occurs, padding included: int64."""
        counts = np.zeros(256, np.int64)
        histogram(self.symbols, counts)
        return counts

    @property
    def bits(self) -> int:
        """Bits of a fixed-width symbol."""
        return max(1, (self.alphabet - 1).bit_length())


@dataclass(frozen=True)
class Plane:
    """An encoded plane.

    Attributes:
        coder: kind of plane, a name of ``enum ei_coder`` in lower case.
        bits, lanes, extra: as in ``ei_plane``.
        payload: bytes of all tiles, uint8.
        at: uint32 offsets of tiles (and the end), or ``None`` where tiles have computed sizes.
        model: stored code lengths or frequencies, uint8, or ``None``.
    """

    coder: str
    bits: int
    lanes: int
    extra: int
    payload: np.ndarray
    at: np.ndarray | None = None
    model: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        return self.payload.nbytes + (0 if self.at is None else self.at.nbytes) + (0 if self.model is None else self.model.nbytes)


@dataclass
class Coder:
    """Base of coders. Subclasses are registered in ``CODERS`` under :attr:`name`; constructor keywords are the stored form."""

    name: ClassVar[str] = ""

    def options(self) -> dict[str, Any]:
        """Constructor keywords that make this coder again."""
        return dict(vars(self))

    def encode_tiles(self, tiles: Tiles) -> Plane:
        """Encode one plane."""
        raise NotImplementedError

    def size_bits(self, tiles: Tiles) -> float:
        """Bits that :meth:`encode_tiles` would take, offsets and models included; exact but for the rounding of streams to bytes."""
        raise NotImplementedError

    def cycles(self, tiles: Tiles) -> float:
        """Processor cycles that one weight takes when a row of inputs is multiplied by the coded tensor: an estimate, measured with
        ``benchmarks/kernels.py --coders`` on AVX2 (Zen 3); only the order of coders matters."""
        raise NotImplementedError

    def encode(self, symbols: np.ndarray, groups: int, k_chunk: int | None, alphabet: int, pad: int = 0) -> Plane:
        """Encode a uint8 (rows, k) matrix of symbols below ``alphabet``; ``pad`` fills short blocks (the symbol nearest zero)."""
        rows, k = symbols.shape
        return self.encode_tiles(Tiles.cut(symbols, TileLayout.of(rows, k, groups, k_chunk), alphabet, pad))


CODERS: Registry[Coder] = Registry("coder")


def offsets(at: np.ndarray) -> np.ndarray:
    """int64 offsets as the stored uint32. Raises UsageError where a plane is too long for them."""
    if int(at[-1]) >= 1 << 32:
        raise UsageError(f"a plane of {int(at[-1])} bytes is too long for a coder of variable length; use packed")
    return at.astype(np.uint32)
