# cython: language_level=3, boundscheck=False, wraparound=False
"""Coded tensors as the kernels see them, and the checksum of container bytes.

A :class:`CodedTensor` is the checked, C-side form of a container entry. What the file says is hostile: sizes are checked when the object is made,
contents (offsets, code lengths, frequencies) when bytes are attached; after that the decoders can trust everything but tile bytes.
"""
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy

from edgeinfer.errors import ContainerError, KernelError


cdef extern from "checksum.h" nogil:
    uint32_t ei_crc32c(uint32_t crc, const void *bytes, size_t n)
    uint32_t ei_crc32c_portable(uint32_t crc, const void *bytes, size_t n)

cdef extern from "weights.h" nogil:
    ctypedef struct ei_plane:
        int32_t coder, bits, lanes, extra
        const void *model
        const uint32_t *at
        const uint8_t *bytes
        uint64_t n_bytes
    ctypedef struct ei_weights:
        int64_t rows, k
        int32_t groups, k_chunk, n_planes, base_only, table_len
        const float *table
        const float *base_table
        const float *row_scale
        ei_plane plane[2]
    int EI_ROW_BLOCK, EI_OVERREAD
    int EI_RAW_F32, EI_RAW_F16, EI_RAW_BF16, EI_RAW_U8, EI_PACKED, EI_HUFFMAN, EI_RANS, EI_GAPS
    int64_t EI_PADDED(int64_t rows)
    int64_t EI_PANEL_LD(int64_t rows)
    int64_t ei_blocks_per_group(const ei_weights *w)
    int64_t ei_blocks(const ei_weights *w)
    int64_t ei_chunks(const ei_weights *w)
    int64_t ei_block_first(const ei_weights *w, int64_t block)
    int64_t ei_block_rows(const ei_weights *w, int64_t block)
    int64_t ei_chunk_k(const ei_weights *w, int64_t chunk)
    size_t ei_decode_scratch(int64_t k_chunk)
    ctypedef int ei_decode_tile_fn(const ei_weights *w, int64_t block, int64_t chunk, void *scratch, float *panel) noexcept

cdef extern from "models.h" nogil:
    ctypedef struct ei_huffman_model:
        pass
    ctypedef struct ei_planes_model:
        pass
    ctypedef struct ei_rans_model:
        pass
    int EI_HUFFMAN_LONGEST, EI_HUFFMAN_STREAMS, EI_HUFFMAN_PLANES, EI_RANS_MOST_BITS
    int ei_huffman_table_bits(int longest, uint64_t weights)
    size_t ei_huffman_model_size(int table_bits)
    size_t ei_rans_model_size(int bits)
    int ei_build_huffman(const uint8_t *lengths, int alphabet, int longest, int table_bits, ei_huffman_model *model)
    int ei_build_planes(const uint8_t *lengths, int alphabet, int longest, ei_planes_model *model)
    int ei_build_rans(const uint8_t *frequencies, int alphabet, int bits, ei_rans_model *model)
    float ei_half_value(uint32_t h)

cdef extern from *:
    """
    #include <string.h>
    #include <time.h>
    #include "table.h"
    /* The decoders by name, without the tables of all kernels: this module needs nothing else of them. */
    #define EI_EXTERN_DECODER(v) extern ei_decode_tile_fn ei_decode_tile_##v;
    EI_VARIANTS(EI_EXTERN_DECODER)
    static ei_decode_tile_fn *find_decoder(const char *name) {
    #ifdef EI_HAVE_AVX512
      if (!strcmp(name, "avx512")) return ei_decode_tile_avx512;
    #endif
    #ifdef EI_HAVE_AVX2
      if (!strcmp(name, "avx2")) return ei_decode_tile_avx2;
    #endif
    #ifdef EI_HAVE_NEON_DOTPROD
      if (!strcmp(name, "neon_dotprod")) return ei_decode_tile_neon_dotprod;
    #endif
    #ifdef EI_HAVE_NEON
      if (!strcmp(name, "neon")) return ei_decode_tile_neon;
    #endif
      return ei_decode_tile_plain;
    }
    static const char *kernels_name(int at) { return ei_available_kernels()[at]; }
    static double monotonic_seconds(void) {
      struct timespec t;
      clock_gettime(CLOCK_MONOTONIC, &t);
      return t.tv_sec + 1e-9 * t.tv_nsec;
    }
    """
    ei_decode_tile_fn *find_decoder(const char *name)
    double monotonic_seconds() nogil
    const char *kernels_name(int at)  # in C: Cython 3.0 loses the assignment of a 'const char *const *'


cdef enum:
    MOST_CHUNK = 4096

#: largest k_chunk: stream lengths of Huffman tiles are 16-bit
K_CHUNK_LIMIT = MOST_CHUNK
#: bytes that must be readable behind an extent
OVERREAD = EI_OVERREAD

_CODERS = {
    "raw_f32": EI_RAW_F32, "raw_f16": EI_RAW_F16, "raw_bf16": EI_RAW_BF16, "raw_u8": EI_RAW_U8,
    "packed": EI_PACKED, "huffman": EI_HUFFMAN, "rans": EI_RANS, "gaps": EI_GAPS,
}
_FIXED_BITS = {"raw_f32": 32, "raw_f16": 16, "raw_bf16": 16, "raw_u8": 8}


def crc32c(buffer, uint32_t value=0, bint portable=False):
    """CRC32C of the bytes of a buffer, continuing from ``value``. ``portable`` leaves out the CPU's instruction (for tests)."""
    cdef const uint8_t[::1] view = buffer
    cdef size_t n = view.shape[0]
    if n == 0:
        return value
    with nogil:
        if portable:
            value = ei_crc32c_portable(value, &view[0], n)
        else:
            value = ei_crc32c(value, &view[0], n)
    return value


def available_kernels():
    """Names of the kernel variants that this build has and this CPU can run, best first."""
    found = []
    while kernels_name(<int>len(found)) != NULL:
        found.append(kernels_name(<int>len(found)).decode())
    return found


cdef ei_decode_tile_fn *decoder(str kernels) except NULL:
    known = available_kernels()
    if kernels not in known:
        raise KernelError(f"kernels {kernels!r} are not available here; available: {', '.join(known)}")
    return find_decoder(kernels.encode())


cdef class CodedTensor:
    """One coded weight tensor: ``rows`` x ``k`` in ``groups``, cut into tiles (cython/kernels/weights.h).

    Args:
        entry: a :class:`edgeinfer.container.Entry` (or anything with its attributes) that is not plain. Raises ContainerError where
            its sizes contradict each other.

    Attributes:
        owned_bytes: memory that :meth:`attach` takes besides the attached bytes: value tables, float row scales, decode models.
        base_only: decode the sign plane alone with its two centroids (only for tensors of two planes).
        address: of the ``ei_weights`` struct, valid as long as this object; its pointers are NULL until bytes are attached.
    """

    cdef ei_weights w
    cdef uint8_t *owned
    cdef size_t owned_size, table_at, base_at, scale_at
    cdef size_t model_at[2]
    cdef int longest[2]
    cdef int alphabet[2]
    cdef int64_t length
    cdef dict parts
    cdef object buffer
    cdef readonly str name

    def __cinit__(self):
        self.owned = NULL

    def __dealloc__(self):
        PyMem_RawFree(self.owned)

    def __init__(self, entry):
        self.name = str(entry.name)
        try:
            self._describe(entry)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise ContainerError(f"tensor {self.name!r}: malformed entry ({error!r})") from None

    cdef _bad(self, str what):
        raise ContainerError(f"tensor {self.name!r}: {what}")

    cdef int64_t _size(self, str part) except -1:
        if part not in self.parts:
            self._bad(f"part {part!r} is missing")
        return self.parts[part][1]

    cdef _expect(self, str part, int64_t size):
        cdef int64_t found = self._size(part)
        if found != size:
            self._bad(f"part {part!r}: expected {size} bytes, found {found}")

    cdef _describe(self, entry):
        cdef ei_weights *w = &self.w
        cdef ei_plane *p
        cdef int64_t per, padded_rows, tiles, begin, size
        cdef int i, bits, n
        self.length = entry.extent.length
        self.parts = {str(key): (int(value[0]), int(value[1])) for key, value in entry.parts.items()}
        for part, (begin, size) in self.parts.items():
            if begin < 0 or begin % 64 or size < 0 or begin > self.length or size > self.length - begin:
                self._bad(f"part {part!r}: bytes {begin}..{begin + size} of an extent of {self.length} bytes (parts start at multiples of 64)")
        w.rows, w.k, w.groups, w.k_chunk = entry.rows, entry.k, entry.groups, entry.k_chunk
        if not (1 <= w.rows < 1 << 31 and 1 <= w.k < 1 << 31 and w.rows * w.k < 1 << 40):
            self._bad(f"expected 1..2^31 rows and inputs, fewer than 2^40 weights, found {w.rows} x {w.k}")
        if not 1 <= w.groups <= w.rows or w.rows % w.groups:
            self._bad(f"expected groups that divide {w.rows} rows, found {w.groups}")
        if not 1 <= w.k_chunk <= MOST_CHUNK:
            self._bad(f"expected a k_chunk of 1..{MOST_CHUNK}, found {w.k_chunk}")
        per = ei_blocks_per_group(w)
        padded_rows = w.groups * ((per - 1) * EI_ROW_BLOCK + EI_PADDED(w.rows // w.groups - (per - 1) * EI_ROW_BLOCK))
        tiles = ei_blocks(w) * ei_chunks(w)

        planes = entry.planes
        n = len(planes)
        if not 1 <= n <= 2:
            self._bad(f"expected 1 or 2 planes, found {n}")
        w.n_planes = n
        w.table_len = 0
        coders = [str(plane["coder"]) for plane in planes]
        for coder in coders:
            if coder not in _CODERS:
                self._bad(f"expected a coder of {', '.join(sorted(_CODERS))}, found {coder!r}")
        if coders[0] not in ("raw_f32", "raw_f16", "raw_bf16"):
            size = self._size("table")
            if size < 4 or size > 1024 or size % 4:
                self._bad(f"part 'table': expected 1 to 256 floats, found {size} bytes")
            w.table_len = <int32_t>(size // 4)
        elif n != 1:
            self._bad("a plane of floats must be the only plane")
        self.owned_size = 0
        self.table_at = self.base_at = self.scale_at = 0
        if w.table_len:
            # decoders read table entries for every value of the symbol's bits
            self.table_at = self._reserve(1024)
        if n == 2:
            if coders[0] != "packed" or planes[0]["bits"] != 1 or coders[1] not in ("raw_u8", "packed", "huffman", "rans", "gaps"):
                self._bad("two planes must be packed signs of 1 bit and coded buckets")
            if w.table_len % 2:
                self._bad(f"expected an even table for signs and buckets, found {w.table_len} values")
            self._expect("base_table", 8)
            self.base_at = self._reserve(64)
        if "row_scale" in self.parts:
            if not w.table_len:
                self._bad("row scales need symbols")
            self._expect("row_scale", 2 * w.rows)
            self.scale_at = self._reserve(4 * <size_t>w.rows)

        for i in range(n):
            p = &w.plane[i]
            plane = planes[i]
            coder = coders[i]
            p.coder = _CODERS[coder]
            p.bits, p.lanes, p.extra = plane["bits"], plane["lanes"], plane["extra"]
            self.alphabet[i] = 2 if n == 2 and i == 0 else w.table_len // n
            self.model_at[i] = 0
            bits = p.bits
            most = 1 if n == 2 and i == 0 else 7 if n == 2 else 8
            if bits != _FIXED_BITS[coder] if coder in _FIXED_BITS else not 1 <= bits <= most:
                self._bad(f"plane {i}: {bits} bits do not suit coder {coder!r}")
            if w.table_len and self.alphabet[i] > 1 << bits:
                self._bad(f"plane {i}: {self.alphabet[i]} symbols do not fit {bits} bits")
            if coder in _FIXED_BITS or coder == "packed":
                self._expect(f"plane{i}", padded_rows * w.k // 8 * bits)
                continue
            self._expect(f"at{i}", 4 * (tiles + 1))
            if self._size(f"plane{i}") >= 1 << 32:
                self._bad(f"plane {i}: offsets of 32 bits cannot reach {self._size(f'plane{i}')} bytes")
            if coder == "huffman":
                if p.lanes not in (EI_HUFFMAN_STREAMS, EI_HUFFMAN_PLANES) or not 1 <= p.extra <= EI_HUFFMAN_LONGEST:
                    self._bad(f"plane {i}: expected {EI_HUFFMAN_STREAMS} streams, or {EI_HUFFMAN_PLANES} for planes of bits, and codes of "
                              f"1..{EI_HUFFMAN_LONGEST} bits, found {p.lanes} and {p.extra}")
                self._expect(f"model{i}", (self.alphabet[i] + 1) // 2)
                self.model_at[i] = self._reserve(sizeof(ei_planes_model) if p.lanes == EI_HUFFMAN_PLANES
                                                 else ei_huffman_model_size(ei_huffman_table_bits(p.extra, w.rows * w.k)))
            elif coder == "rans":
                if p.lanes not in (1, 8, 32) or not 8 <= p.extra <= EI_RANS_MOST_BITS:
                    self._bad(f"plane {i}: expected 1, 8 or 32 states and frequencies of 8..{EI_RANS_MOST_BITS} bits, found {p.lanes} and {p.extra}")
                self._expect(f"model{i}", 2 * self.alphabet[i])
                self.model_at[i] = self._reserve(ei_rans_model_size(p.extra))
            else:
                if not 1 <= p.extra <= 16 or not 0 <= p.lanes < self.alphabet[i]:
                    self._bad(f"plane {i}: expected gaps of 1..16 bits and a symbol below {self.alphabet[i]}, found {p.extra} and {p.lanes}")

    cdef size_t _reserve(self, size_t size):
        cdef size_t at = self.owned_size
        self.owned_size = at + (size + 63) // 64 * 64
        return at

    def attach(self, buffer, places=None):
        """Point the tensor to the bytes of its extent.

        Args:
            buffer: object with the buffer protocol, aligned to 4 bytes, at least the extent and ``OVERREAD`` readable bytes; a reference is kept.
            places: where the buffer does not hold the extent as it is: part -> offset in the buffer, for every part but the planes, which
                then lie elsewhere, in pieces (:class:`CodedRows`), and the tensor itself cannot be decoded.

        Raises:
            ContainerError: contents that are not what they must be. ValueError: a buffer that is too short or not aligned.
        """
        cdef const uint8_t[::1] view = buffer
        cdef const uint8_t *base
        cdef ei_weights *w = &self.w
        cdef ei_plane *p
        cdef int64_t i, n, tiles = ei_blocks(w) * ei_chunks(w)
        cdef int64_t fault = -1
        cdef int status, number
        cdef float *scale
        if places is None:
            if view.shape[0] < self.length + EI_OVERREAD:
                raise ValueError(f"tensor {self.name!r}: expected a buffer of {self.length} + {EI_OVERREAD} bytes, found {view.shape[0]}")
        else:
            for part, (begin, size) in self.parts.items():
                if not part.startswith("plane") and not 0 <= places[part] <= view.shape[0] - size:
                    raise ValueError(f"tensor {self.name!r}: part {part!r} does not fit a buffer of {view.shape[0]} bytes at {places[part]}")
        at = {part: begin for part, (begin, size) in self.parts.items()} if places is None else places
        base = &view[0]
        if <uintptr_t>base % 4:
            raise ValueError(f"tensor {self.name!r}: the buffer must be aligned to 4 bytes")
        self.detach()
        if self.owned_size:
            self.owned = <uint8_t *>PyMem_RawCalloc(1, self.owned_size)
            if self.owned == NULL:
                raise MemoryError(f"tensor {self.name!r}: {self.owned_size} bytes of tables")
        try:
            if w.table_len:
                self._copy_floats("table", base + <int64_t>at["table"], self.table_at)
                w.table = <float *>(self.owned + self.table_at)
            if w.n_planes == 2:
                self._copy_floats("base_table", base + <int64_t>at["base_table"], self.base_at)
                w.base_table = <float *>(self.owned + self.base_at)
            if "row_scale" in self.parts:
                scale = <float *>(self.owned + self.scale_at)
                self._copy_scales(base + <int64_t>at["row_scale"], scale)
                w.row_scale = scale
            for number in range(w.n_planes):
                p = &w.plane[number]
                if places is None:
                    p.bytes = base + <int64_t>at[f"plane{number}"]
                p.n_bytes = self.parts[f"plane{number}"][1]
                if p.coder < EI_HUFFMAN:
                    continue
                p.at = <const uint32_t *>(base + <int64_t>at[f"at{number}"])
                with nogil:
                    if p.at[0] != 0:
                        fault = 0
                    for i in range(tiles):
                        if p.at[i] > p.at[i + 1]:
                            fault = i + 1
                            break
                    if fault < 0 and p.at[tiles] != p.n_bytes:
                        fault = tiles
                if fault >= 0:
                    self._bad(f"plane {number}: offset {fault} of tiles is {p.at[fault]}; offsets must rise from 0 to {p.n_bytes}")
                if p.coder == EI_HUFFMAN:
                    if p.lanes == EI_HUFFMAN_PLANES:
                        status = ei_build_planes(base + <int64_t>at[f"model{number}"], self.alphabet[number], p.extra,
                                                 <ei_planes_model *>(self.owned + self.model_at[number]))
                    else:
                        status = ei_build_huffman(base + <int64_t>at[f"model{number}"], self.alphabet[number], p.extra,
                                                  ei_huffman_table_bits(p.extra, w.rows * w.k), <ei_huffman_model *>(self.owned + self.model_at[number]))
                    if status:
                        self._bad(f"plane {number}: the code lengths are not those of a complete code of at most {p.extra} bits")
                    p.model = self.owned + self.model_at[number]
                elif p.coder == EI_RANS:
                    status = ei_build_rans(base + <int64_t>at[f"model{number}"], self.alphabet[number], p.extra,
                                           <ei_rans_model *>(self.owned + self.model_at[number]))
                    if status:
                        self._bad(f"plane {number}: the frequencies do not sum to {1 << p.extra}")
                    p.model = self.owned + self.model_at[number]
        except BaseException:
            self.detach()
            raise
        self.buffer = view

    cdef _copy_floats(self, str part, const uint8_t *begin, size_t at):
        cdef int64_t size = self.parts[part][1], i
        cdef float *to = <float *>(self.owned + at)
        memcpy(to, begin, size)
        for i in range(size // 4):
            if not (-3.5e38 < to[i] < 3.5e38):
                self._bad(f"part {part!r}: value {i} is {to[i]}")

    cdef _copy_scales(self, const uint8_t *begin, float *scale):
        cdef int64_t i, fault = -1
        cdef uint16_t half
        with nogil:
            for i in range(self.w.rows):
                memcpy(&half, begin + 2 * i, 2)
                scale[i] = ei_half_value(half)
                if not (-65536 < scale[i] < 65536) and fault < 0:
                    fault = i
        if fault >= 0:
            self._bad(f"part 'row_scale': scale {fault} is {scale[fault]}")

    def detach(self):
        """Let go of the attached bytes and of the owned memory; safe to call at any time that no kernel runs."""
        cdef int i
        self.w.table = self.w.base_table = self.w.row_scale = NULL
        for i in range(2):
            self.w.plane[i].model = NULL
            self.w.plane[i].at = NULL
            self.w.plane[i].bytes = NULL
        PyMem_RawFree(self.owned)
        self.owned = NULL
        self.buffer = None

    @property
    def attached(self):
        return self.buffer is not None

    @property
    def owned_bytes(self):
        return self.owned_size

    @property
    def address(self):
        return <uintptr_t>&self.w

    @property
    def base_only(self):
        return bool(self.w.base_only)

    @base_only.setter
    def base_only(self, bint value):
        if value and self.w.n_planes != 2:
            raise ValueError(f"tensor {self.name!r} has no sign plane")
        self.w.base_only = value

    @property
    def rows(self):
        return self.w.rows

    @property
    def k(self):
        return self.w.k

    @property
    def groups(self):
        return self.w.groups

    @property
    def k_chunk(self):
        return self.w.k_chunk

    @property
    def tiles(self):
        """(row blocks, chunks of k)"""
        return ei_blocks(&self.w), ei_chunks(&self.w)

    cdef _need_bytes(self):
        if self.buffer is None or self.w.plane[0].bytes == NULL:
            raise ValueError(f"tensor {self.name!r}: no bytes attached")

    def decode(self, str kernels="plain"):
        """All weights as float32 (rows, k), row scales applied; for inspection and tests.

        Raises ContainerError where a tile is not valid, KernelError for kernels that are not available.
        """
        import numpy as np

        cdef ei_decode_tile_fn *decode_tile = decoder(kernels)
        self._need_bytes()
        cdef const ei_weights *w = &self.w
        out = np.empty((w.rows, w.k), np.float32)
        cdef float[:, ::1] values = out
        cdef float[::1] panel = _aligned(np, w.k_chunk * 32 * 4).view(np.float32)
        cdef uint8_t[::1] scratch = _aligned(np, ei_decode_scratch(w.k_chunk))
        cdef int64_t block, chunk, first, n, k, ld, i, r
        cdef int status = 0
        for block in range(ei_blocks(w)):
            for chunk in range(ei_chunks(w)):
                first, n, k = ei_block_first(w, block), ei_block_rows(w, block), ei_chunk_k(w, chunk)
                ld = EI_PANEL_LD(n)
                with nogil:
                    status = decode_tile(w, block, chunk, &scratch[0], &panel[0])
                    if status == 0:
                        for r in range(n):
                            for i in range(k):
                                values[first + r, chunk * w.k_chunk + i] = panel[i * ld + r]
                if status:
                    self._bad(f"tile {chunk} of row block {block} is not a valid stream")
        if w.row_scale != NULL:
            out *= np.asarray(<float[:w.rows]>w.row_scale)[:, None]
        return out

    def decode_tile(self, int64_t block, int64_t chunk, str kernels="plain"):
        """One tile as the panel that the kernels see: float32 (k of the chunk, 16 or 32), without row scales."""
        import numpy as np

        cdef ei_decode_tile_fn *function = decoder(kernels)
        self._need_bytes()
        if not (0 <= block < ei_blocks(&self.w) and 0 <= chunk < ei_chunks(&self.w)):
            raise IndexError(f"tile ({block}, {chunk}) of {self.tiles}")
        cdef int64_t k = ei_chunk_k(&self.w, chunk), ld = EI_PANEL_LD(ei_block_rows(&self.w, block))
        panel = _aligned(np, k * ld * 4).view(np.float32)
        cdef float[::1] floats = panel
        cdef uint8_t[::1] scratch = _aligned(np, ei_decode_scratch(self.w.k_chunk))
        if function(&self.w, block, chunk, &scratch[0], &floats[0]):
            self._bad(f"tile {chunk} of row block {block} is not a valid stream")
        return panel.reshape(k, ld)

    def decode_seconds(self, str kernels="plain"):
        """Seconds that one thread takes to decode every tile once into a panel that stays in cache."""
        import numpy as np

        cdef ei_decode_tile_fn *function = decoder(kernels)
        self._need_bytes()
        cdef float[::1] panel = _aligned(np, self.w.k_chunk * 32 * 4).view(np.float32)
        cdef uint8_t[::1] scratch = _aligned(np, ei_decode_scratch(self.w.k_chunk))
        cdef int64_t block, chunk
        cdef int bad = 0
        cdef double seconds
        with nogil:
            seconds = monotonic_seconds()
            for block in range(ei_blocks(&self.w)):
                for chunk in range(ei_chunks(&self.w)):
                    bad |= function(&self.w, block, chunk, &scratch[0], &panel[0])
            seconds = monotonic_seconds() - seconds
        if bad:
            self._bad("a tile is not a valid stream")
        return seconds


    @property
    def decoded_bytes(self):
        """Bytes of all tiles as floats, padding rows included: what :meth:`decode_to` fills."""
        return 4 * self.w.k * padded_rows(&self.w)

    def decode_to(self, uintptr_t address, str kernels="plain"):
        """Decode every tile once to ``address`` in the order and form of a plane of raw floats, without row scales, for :class:`CodedRows`.

        Raises ContainerError where a tile is not valid, KernelError for kernels that are not available.
        """
        import numpy as np

        cdef ei_decode_tile_fn *function = decoder(kernels)
        self._need_bytes()
        cdef float[::1] panel = _aligned(np, self.w.k_chunk * 32 * 4).view(np.float32)
        cdef uint8_t[::1] scratch = _aligned(np, ei_decode_scratch(self.w.k_chunk))
        cdef const ei_weights *w = &self.w
        cdef float *to = <float *>address
        cdef int64_t block, chunk, k, ld, padded, i
        cdef int status
        for block in range(ei_blocks(w)):
            padded, ld = EI_PADDED(ei_block_rows(w, block)), EI_PANEL_LD(ei_block_rows(w, block))
            for chunk in range(ei_chunks(w)):
                k = ei_chunk_k(w, chunk)
                with nogil:
                    status = function(w, block, chunk, &scratch[0], &panel[0])
                    if status == 0:
                        for i in range(k):
                            memcpy(to, &panel[i * ld], padded * 4)
                            to += padded
                if status:
                    self._bad(f"tile {chunk} of row block {block} is not a valid stream")


cdef class CodedRows:
    """A run of row blocks of a :class:`CodedTensor`, whose bytes lie where :meth:`place` says.

    To the kernels it is a tensor of its own with fewer rows: every output row sums in the same order as in the whole tensor.

    Args:
        whole: the tensor; its tables have to be attached before :meth:`place`.
        group: whose row blocks; the rows then have one group. -1: the whole tensor, all its groups.
        first, blocks: row blocks, counted within the group; all of them for group -1.

    Attributes:
        first_row, rows: of the whole tensor, in its order.
        address: of the ``ei_weights`` struct, valid as long as this object.
    """

    cdef ei_weights w
    cdef readonly CodedTensor whole
    cdef readonly int64_t first_row, first_tile
    cdef int64_t end_tile, rows_before

    def __init__(self, CodedTensor whole, int64_t group=-1, int64_t first=0, int64_t blocks=-1):
        cdef const ei_weights *full = &whole.w
        cdef int64_t per = ei_blocks_per_group(full), begin, end
        if group < 0:
            begin, end = 0, ei_blocks(full)
        else:
            if blocks < 0:
                blocks = per - first
            if group >= full.groups or first < 0 or blocks < 1 or first + blocks > per:
                raise ValueError(f"tensor {whole.name!r}: blocks {first}..{first + blocks} of group {group}; it has {full.groups} groups of {per}")
            begin, end = group * per + first, group * per + first + blocks
        self.whole = whole
        self.first_tile, self.end_tile = begin * ei_chunks(full), end * ei_chunks(full)
        self.first_row = ei_block_first(full, begin)
        self.rows_before = begin // per * padded_group_rows(full) + begin % per * EI_ROW_BLOCK
        self.w = whole.w
        self.w.rows = ei_block_first(full, end - 1) + ei_block_rows(full, end - 1) - self.first_row
        if group >= 0:
            self.w.groups = 1
        self._forget()

    cdef _forget(self):
        cdef int i
        self.w.table = self.w.base_table = self.w.row_scale = NULL
        for i in range(2):
            self.w.plane[i].model = NULL
            self.w.plane[i].at = NULL
            self.w.plane[i].bytes = NULL

    @property
    def address(self):
        return <uintptr_t>&self.w

    @property
    def name(self):
        return self.whole.name

    @property
    def rows(self):
        return self.w.rows

    def spans(self):
        """(first byte, bytes) in each plane that decoding these rows needs. Planes with stored tile offsets: the tables must be attached."""
        cdef const ei_plane *p
        cdef int64_t begin, size
        cdef uint64_t bits
        found = []
        for number in range(1 if self.whole.w.base_only else self.whole.w.n_planes):
            p = &self.whole.w.plane[number]
            if p.coder >= EI_HUFFMAN:
                if p.at == NULL:
                    raise ValueError(f"tensor {self.whole.name!r}: no tables attached")
                found.append((p.at[self.first_tile], p.at[self.end_tile] - p.at[self.first_tile]))
            else:
                bits = p.bits
                begin = self.rows_before * self.w.k // 8 * bits
                size = padded_rows(&self.w) * self.w.k // 8 * bits
                found.append((begin, size))
        return found

    def place(self, *addresses):
        """Say where the bytes of each of :meth:`spans` are, ``OVERREAD`` readable bytes behind each. The memory stays the caller's."""
        cdef int number
        cdef uintptr_t address
        cdef const ei_weights *full = &self.whole.w
        if full.table_len and full.table == NULL:
            raise ValueError(f"tensor {self.whole.name!r}: no tables attached")
        self._tables()
        self.w.base_only = full.base_only
        for number in range(len(addresses)):
            address = addresses[number]
            self.w.plane[number] = full.plane[number]
            if full.plane[number].coder >= EI_HUFFMAN:
                self.w.plane[number].at = full.plane[number].at + self.first_tile
                # tile offsets count from the beginning of the whole plane
                address -= full.plane[number].at[self.first_tile]
            self.w.plane[number].bytes = <const uint8_t *>address

    def place_decoded(self, uintptr_t address):
        """Say where :meth:`CodedTensor.decode_to` put the tiles of the whole tensor, of which these are rows."""
        self._tables()
        self.w.n_planes, self.w.base_only, self.w.table_len = 1, 0, 0
        self.w.table = self.w.base_table = NULL
        self.w.plane[0].coder, self.w.plane[0].bits, self.w.plane[0].at = EI_RAW_F32, 32, NULL
        self.w.plane[0].bytes = <const uint8_t *>(address + <uintptr_t>(4 * self.rows_before * self.w.k))

    cdef _tables(self):
        cdef const ei_weights *full = &self.whole.w
        self.w.table, self.w.base_table = full.table, full.base_table
        self.w.row_scale = full.row_scale + self.first_row if full.row_scale != NULL else NULL

cdef int64_t padded_group_rows(const ei_weights *w):
    cdef int64_t per = ei_blocks_per_group(w)
    return (per - 1) * EI_ROW_BLOCK + EI_PADDED(w.rows // w.groups - (per - 1) * EI_ROW_BLOCK)


cdef int64_t padded_rows(const ei_weights *w):
    """Rows of all blocks, each padded as it is stored."""
    return w.groups * padded_group_rows(w)


def _aligned(np, size_t size):
    """uint8 array that starts at a multiple of 64"""
    array = np.empty(size + 64, np.uint8)
    start = -array.ctypes.data % 64
    return array[start : start + size]
