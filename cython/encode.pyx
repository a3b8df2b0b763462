# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Loops of the encoders. Belongs to edgeinfer.coders, which checks what it hands in; tile forms: cython/kernels/decode_*.c.

``symbols`` is always a tensor's symbols in tile order; tile ``t`` is ``symbols[start[t]:start[t + 1]]``, ordered [k][padded row].
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset


cdef extern from "weights.h" nogil:
    int64_t ei_segment(int64_t n)


def segment(int64_t n):
    """Inputs per segment of a chunk of ``n`` inputs."""
    return ei_segment(n)


def histogram(const uint8_t[::1] symbols, int64_t[::1] counts):
    """Add the number of times each symbol occurs to ``counts`` (256)."""
    cdef int64_t i, n = symbols.shape[0]
    cdef int64_t[4][256] part
    memset(part, 0, sizeof(part))
    with nogil:
        for i in range(0, n - 3, 4):
            part[0][symbols[i]] += 1
            part[1][symbols[i + 1]] += 1
            part[2][symbols[i + 2]] += 1
            part[3][symbols[i + 3]] += 1
        for i in range(n // 4 * 4, n):
            part[0][symbols[i]] += 1
        for i in range(256):
            counts[i] += part[0][i] + part[1][i] + part[2][i] + part[3][i]


cdef int64_t pack_rows(const uint8_t *symbols, int64_t padded, int bits, uint8_t *out) noexcept nogil:
    """Fields of the symbols of one k; ``out`` is zeroed. Returns the bytes written."""
    cdef int64_t j, at = 0, nbytes
    cdef int field = 8, low = 0, part, shift, mask
    while field:
        if bits & field:
            nbytes = padded * field // 8
            mask = (1 << field) - 1
            for part in range(8 // field):
                shift = part * field
                for j in range(nbytes):
                    out[at + j] |= <uint8_t>((symbols[part * nbytes + j] >> low & mask) << shift)
            at += nbytes
            low += field
        field >>= 1
    return at


def pack(const uint8_t[::1] symbols, int64_t padded, int bits, uint8_t[::1] out):
    """Fields of ``bits`` bits; ``symbols`` is a run of whole k of ``padded`` rows, ``out`` exactly its packed size, zeroed."""
    cdef int64_t i, at = 0
    with nogil:
        for i in range(symbols.shape[0] // padded):
            at += pack_rows(&symbols[i * padded], padded, bits, &out[at])


def huffman(const uint8_t[::1] symbols, const int64_t[::1] start, const int64_t[:, ::1] stream_start, const uint32_t[::1] codes,
            const uint8_t[::1] lengths, uint8_t[::1] out, int64_t[::1] at):
    """Write all tiles; ``stream_start[t]`` are the four first symbols and the end of tile ``t``. ``codes`` are bit-reversed.

    ``out`` must hold everything and 16 bytes more. Returns the bytes written; ``at`` gets the tiles' offsets.
    """
    cdef int64_t t, i, tiles = start.shape[0] - 1, to = 0, head
    cdef int s, n
    cdef uint64_t window
    cdef int64_t begin
    cdef uint16_t size
    with nogil:
        for t in range(tiles):
            at[t] = to
            head = to
            to += 6
            for s in range(4):
                window = 0
                n = 0
                begin = to
                for i in range(stream_start[t, s], stream_start[t, s + 1]):
                    window |= <uint64_t>codes[symbols[i]] << n
                    n += lengths[symbols[i]]
                    if n >= 32:
                        memcpy(&out[to], &window, 4)
                        to += 4
                        window >>= 32
                        n -= 32
                memcpy(&out[to], &window, 8)
                to += (n + 7) // 8
                if s < 3:
                    size = <uint16_t>(to - begin)
                    memcpy(&out[head + 2 * s], &size, 2)
        at[tiles] = to
    return to


def planes(const uint8_t[::1] symbols, const int64_t[::1] start, const int64_t[::1] padded, const uint32_t[::1] codes,
           const uint8_t[::1] lengths, int shortest, int longest, uint8_t[::1] out, int64_t[::1] at):
    """Write all tiles with code bits in planes by depth; ``padded[t]`` are the rows of tile ``t``. ``codes`` have their first bit highest.

    ``out`` is zeroed and must hold everything and 16 bytes more. Returns the bytes written; ``at`` gets the tiles' offsets.
    """
    cdef int64_t t, i, j, tiles = start.shape[0] - 1, to = 0, head, begin
    cdef int depth, n
    cdef uint64_t window
    cdef uint16_t size
    cdef uint8_t[32] first
    cdef uint8_t s
    with nogil:
        for t in range(tiles):
            at[t] = to
            head = to
            to += 2 * (longest - shortest - 1) if longest > shortest else 0
            i = start[t]
            while i < start[t + 1]:
                for j in range(padded[t]):
                    s = symbols[i + j]
                    first[j] = <uint8_t>(codes[s] >> (lengths[s] - shortest))
                to += pack_rows(first, padded[t], shortest, &out[to])
                i += padded[t]
            for depth in range(shortest, longest):
                window = 0
                n = 0
                begin = to
                for i in range(start[t], start[t + 1]):
                    s = symbols[i]
                    if lengths[s] > depth:
                        window |= <uint64_t>(codes[s] >> (lengths[s] - 1 - depth) & 1) << n
                        n += 1
                        if n == 64:
                            memcpy(&out[to], &window, 8)
                            to += 8
                            window = 0
                            n = 0
                memcpy(&out[to], &window, 8)
                to += (n + 7) // 8
                if depth < longest - 1:
                    size = <uint16_t>(to - begin)
                    memcpy(&out[head + 2 * (depth - shortest)], &size, 2)
        at[tiles] = to
    return to


def rans(const uint8_t[::1] symbols, const int64_t[::1] start, const uint32_t[::1] first, const uint32_t[::1] frequency, int bits, int lanes,
         uint16_t[::1] work, uint8_t[::1] out, int64_t[::1] at):
    """Write all tiles; ``work`` holds the words of one tile (one per symbol at most). As :func:`huffman` otherwise."""
    cdef int64_t t, i, tiles = start.shape[0] - 1, to = 0, words, most = work.shape[0]
    cdef int lane
    cdef uint32_t[32] x
    cdef uint32_t f, y
    cdef uint8_t s
    with nogil:
        for t in range(tiles):
            at[t] = to
            words = most
            for lane in range(lanes):
                x[lane] = 65536
            for i in range(start[t + 1] - start[t] - 1, -1, -1):
                lane = <int>(i % lanes)
                s = symbols[start[t] + i]
                f = frequency[s]
                y = x[lane]
                if y >= <uint64_t>f << (32 - bits):
                    words -= 1
                    work[words] = <uint16_t>y
                    y >>= 16
                x[lane] = (y // f << bits) + y % f + first[s]
            memcpy(&out[to], x, 4 * lanes)
            to += 4 * lanes
            if words < most:
                memcpy(&out[to], &work[words], 2 * (most - words))
                to += 2 * (most - words)
        at[tiles] = to
    return to


def gap_histogram(const uint8_t[::1] symbols, const int64_t[::1] start, int left_out, int64_t[::1] counts):
    """Add the number of entries by how many symbols ``left_out`` precede them in their tile."""
    cdef int64_t t, i, gap
    with nogil:
        for t in range(start.shape[0] - 1):
            gap = 0
            for i in range(start[t], start[t + 1]):
                if symbols[i] == left_out:
                    gap += 1
                else:
                    counts[gap] += 1
                    gap = 0


def gaps(const uint8_t[::1] symbols, const int64_t[::1] start, int left_out, int gap_bits, int bits, uint8_t[::1] out, int64_t[::1] at):
    """Write all tiles; as :func:`huffman`."""
    cdef int64_t t, i, to = 0, head, gap, most = (1 << gap_bits) - 1
    cdef uint32_t entries
    cdef uint64_t window
    cdef int n, width = gap_bits + bits
    with nogil:
        for t in range(start.shape[0] - 1):
            at[t] = to
            head = to
            to += 4
            entries = 0
            window = 0
            n = 0
            gap = 0
            for i in range(start[t], start[t + 1]):
                if symbols[i] == left_out:
                    gap += 1
                    continue
                while True:
                    entries += 1
                    if gap > most:
                        window |= (<uint64_t>most | <uint64_t>left_out << gap_bits) << n
                        gap -= most + 1
                    else:
                        window |= (<uint64_t>gap | <uint64_t>symbols[i] << gap_bits) << n
                        gap = -1
                    n += width
                    if n >= 32:
                        memcpy(&out[to], &window, 4)
                        to += 4
                        window >>= 32
                        n -= 32
                    if gap < 0:
                        gap = 0
                        break
            memcpy(&out[to], &window, 8)
            to += (n + 7) // 8
            memcpy(&out[head], &entries, 4)
        at[start.shape[0] - 1] = to
    return to
