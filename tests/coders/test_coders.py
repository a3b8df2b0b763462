"""Coders one by one: sizes, codes, frequencies, the choice of the smallest."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coders import cases
from edgeinfer.coders import CODERS, TileLayout, Tiles, default_k_chunk, encode_tensor, smallest
from edgeinfer.coders.huffman import canonical_codes, code_lengths, short_lengths
from edgeinfer.coders.rans import cost_bits, frequencies
from edgeinfer.container import coded_tensor
from edgeinfer.errors import ContainerError, UsageError
from edgeinfer.kernels.codec import available_kernels
from edgeinfer.quantizers import KMeans, Uniform

COUNTS = st.lists(st.integers(0, 10**9), min_size=1, max_size=256).filter(any)


def entropy_bits(counts):
    counts = counts[counts > 0].astype(np.float64)
    return float(-(counts * np.log2(counts / counts.sum())).sum())


def huffman_cost(counts):
    """Bits of an unlimited Huffman code, by the textbook's heap."""
    heap = [int(c) for c in counts if c]
    if len(heap) == 1:
        return heap[0]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        pair = heapq.heappop(heap) + heapq.heappop(heap)
        total += pair
        heapq.heappush(heap, pair)
    return total


@settings(max_examples=60, deadline=None)
@given(COUNTS)
def test_code_lengths_are_complete_limited_and_optimal(values):
    counts = np.asarray(values, np.int64)
    lengths = code_lengths(counts)
    used = counts > 0
    assert lengths.max() <= 11
    assert ((lengths > 0) == used).all()
    if used.sum() > 1:
        assert sum(2.0 ** -int(n) for n in lengths[used]) == 1
    unlimited = huffman_cost(counts)
    assert int(counts @ lengths) >= unlimited
    free = code_lengths(counts, longest=40) if used.sum() <= 24 else None
    if free is not None:
        assert int(counts @ free) == unlimited


@settings(max_examples=60, deadline=None)
@given(COUNTS)
def test_codes_of_few_depths_cost_little(values):
    counts = np.asarray(values, np.int64)
    lengths, best = short_lengths(counts), code_lengths(counts)
    assert lengths.max() <= best.max()
    assert int(counts @ lengths) <= 1.02 * int(counts @ best)
    if np.count_nonzero(counts) > 1:
        assert sum(2.0 ** -int(n) for n in lengths[lengths > 0]) == 1


def test_layouts_of_huffman():
    weights = cases.weights(64, 512)
    few, many = (Tiles.cut(KMeans(bits).quantize(weights).symbols, TileLayout.of(64, 512), 1 << bits) for bits in (5, 7))
    assert [CODERS["huffman"]().encode_tiles(tiles).lanes for tiles in (few, many)] == [0, 4]
    assert [CODERS["huffman"]("planes").encode_tiles(tiles).lanes for tiles in (few, many)] == [0, 0]
    with pytest.raises(UsageError, match="layout.*'rows'"):
        CODERS["huffman"]("rows")


@pytest.mark.parametrize("part", ["first length", "last byte", "one byte less"])
def test_damaged_planes_are_refused(part):
    """Streams must be used up exactly: other lengths, or a stream with more or fewer deep symbols, are not a tile."""
    weights = cases.weights(32, 512)
    encoded = encode_tensor("t", weights, 32, 1, KMeans(4), CODERS["huffman"]("planes"))
    plane, at = encoded.parts["plane0"], encoded.parts["at0"]
    if part == "first length":
        plane[0] ^= 1
    elif part == "last byte":
        plane[2 : 2 + 512] = 0xFF
    else:
        encoded.parts["plane0"] = plane[:-1].copy()
        at[-1] -= 1
    for kernels in available_kernels():
        with pytest.raises(ContainerError, match="not a valid stream"):
            coded_tensor("t", weights.shape, encoded).decode(kernels)


def test_canonical_codes_are_free_of_prefixes():
    lengths = code_lengths(np.asarray([90, 3, 50, 1, 1, 0, 7]))
    codes = canonical_codes(lengths)
    words = [format(int(codes[s]), f"0{n}b") for s, n in enumerate(lengths) if n]
    assert not any(a != b and b.startswith(a) for a in words for b in words)


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.sampled_from([11, 12]))
def test_frequencies_sum_and_keep_every_symbol(values, bits):
    counts = np.asarray(values, np.int64)
    frequency = frequencies(counts, bits)
    assert frequency.sum() == 1 << bits
    assert ((frequency > 0) == (counts > 0)).all()
    # 256 symbols of at least 1/2048 can take an eighth of the range from the others
    assert cost_bits(counts, frequency) <= entropy_bits(counts) + 0.25 * counts.sum() + 1e-6 * counts.sum()


@pytest.mark.parametrize("name, options", cases.coders())
@pytest.mark.parametrize("pruned", [False, True])
def test_estimated_size_is_the_size(name, options, pruned):
    weights = cases.weights(256, 700, pruned)
    quantized = KMeans(5).quantize(weights)
    tiles = Tiles.cut(quantized.symbols, TileLayout.of(256, 700), len(quantized.table))
    coder = cases.coder(name, options)
    assert coder.size_bits(tiles) == pytest.approx(8 * coder.encode_tiles(tiles).nbytes, rel=0.005)


def test_entropy_coders_reach_the_entropy():
    weights = cases.weights(256, 2048, pruned=True)
    quantized = KMeans(5).quantize(weights)
    tiles = Tiles.cut(quantized.symbols, TileLayout.of(256, 2048), len(quantized.table))
    floor = entropy_bits(tiles.counts) / tiles.layout.weights
    rans = 8 * CODERS["rans"]().encode_tiles(tiles).nbytes / tiles.layout.weights
    huffman = 8 * CODERS["huffman"]("streams").encode_tiles(tiles).nbytes / tiles.layout.weights
    gaps = 8 * CODERS["gaps"]().encode_tiles(tiles).nbytes / tiles.layout.weights
    assert floor < rans < floor + 0.06
    assert 1 < huffman < huffman_cost(tiles.counts) / tiles.layout.weights + 0.02
    assert rans < gaps < huffman


def test_the_choice_of_a_coder():
    def choice(quantizer, weights):
        return encode_tensor("t", weights, len(weights), 1, quantizer).coder

    gaussian = cases.weights(128, 512)
    assert choice(KMeans(4), gaussian) == "packed"  # entropy coding would save 5 %
    assert choice(Uniform(5, step=0.33), gaussian) == "huffman"  # and here a quarter
    assert choice(KMeans(5), cases.weights(128, 512, pruned=True)) == "gaps"
    tiles = Tiles.cut(KMeans(4).quantize(gaussian).symbols, TileLayout.of(128, 512), 16)
    assert CODERS["packed"]().cycles(tiles) < CODERS["huffman"]().cycles(tiles) < CODERS["huffman"]("streams").cycles(tiles)
    # gaps cost by the entry: dense ones are slower than a prefix code, which then is taken where it is hardly larger
    half = np.where(np.abs(gaussian) > np.median(np.abs(gaussian)), gaussian, 0)
    pruned = Tiles.cut(KMeans(4).quantize(half).symbols, TileLayout.of(128, 512), 16)
    assert CODERS["gaps"]().cycles(pruned) > CODERS["huffman"]().cycles(pruned)
    assert choice(KMeans(4), half) == "huffman"
    assert smallest(tiles, worth=0.0) in ("huffman", "rans")


@pytest.mark.parametrize("name", list(CODERS))
def test_a_tensor_of_one_value(name):
    weights = np.full((40, 30), 0.75, np.float32)
    encoded = encode_tensor("t", weights, 40, 1, KMeans(4), cases.coder(name))
    assert encoded.max_error == 0
    np.testing.assert_array_equal(coded_tensor("t", weights.shape, encoded).decode(), weights)


def test_long_gaps_are_bridged():
    weights = np.zeros((32, 4096), np.float32)
    weights[5, 17] = weights[31, 4095] = 1
    for k_chunk in (None, 4096):
        encoded = encode_tensor("t", weights, 32, 1, KMeans(1), cases.coder("gaps"), k_chunk)
        np.testing.assert_array_equal(coded_tensor("t", weights.shape, encoded).decode(), weights)


def test_gap_width_is_the_smallest():
    weights = cases.weights(64, 512, pruned=True)
    quantized = KMeans(4).quantize(weights)
    tiles = Tiles.cut(quantized.symbols, TileLayout.of(64, 512), len(quantized.table))
    left_out = int(np.argmax(tiles.counts))
    widths = {}
    for bits in range(1, 13):
        entries = 0
        for first, last in zip(tiles.layout.starts[:-1], tiles.layout.starts[1:], strict=True):
            kept = np.flatnonzero(tiles.symbols[first:last] != left_out)
            entries += int((1 + (np.diff(kept, prepend=-1) - 1 >> bits)).sum())
        widths[bits] = entries * (bits + tiles.bits)
    assert CODERS["gaps"]().encode_tiles(tiles).extra == min(widths, key=widths.get)


@pytest.mark.parametrize("k, expected", [(1, 32), (32, 32), (512, 512), (576, 288), (4608, 512), (25088, 512), (1300, 448)])
def test_chunks_are_about_equal(k, expected):
    assert default_k_chunk(k) == expected


def test_layouts_that_cannot_be():
    for arguments in ((0, 4), (4, 0), (4, 4, 3), (4, 4, 0), (4, 4, 1, 5000), (4, 4, 1, 0)):
        with pytest.raises(UsageError):
            TileLayout(*arguments)
    with pytest.raises(UsageError, match="'conv.w'"):
        encode_tensor("conv.w", np.zeros((3, 5), np.float32), 4, 1, KMeans(4))


def test_arrangement_of_a_grouped_matrix():
    """Tiles are block-major, ordered [k][row], and never straddle groups."""
    matrix = np.arange(2 * 35 * 3, dtype=np.int64).reshape(70, 3)
    layout = TileLayout(70, 3, 2, 2)
    tiled = layout.arrange(matrix, -1)
    assert layout.tiles == 2 * 2 * 2
    assert list(layout.starts) == [0, 64, 96, 112, 120, 184, 216, 232, 240]
    np.testing.assert_array_equal(tiled[:64].reshape(2, 32), matrix[:32, :2].T)
    np.testing.assert_array_equal(tiled[96:112].reshape(2, 8)[:, :3], matrix[32:35, :2].T)
    assert (tiled[96:112].reshape(2, 8)[:, 3:] == -1).all()
    np.testing.assert_array_equal(tiled[120:184].reshape(2, 32), matrix[35:67, :2].T)
