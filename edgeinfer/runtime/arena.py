"""Memory that can be given back: private anonymous mappings, and the only place that makes NumPy views of them."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

PAGE = mmap.PAGESIZE


def pages(nbytes: int) -> int:
    """``nbytes`` rounded up to whole pages."""
    return -(-nbytes // PAGE) * PAGE


class Mapping:
    """One private anonymous mapping of ``nbytes``; costs resident memory only where it was touched.

    Python's anonymous ``mmap`` is shared unless told otherwise, and a shared mapping escapes ``RLIMIT_DATA``. Huge pages are
    switched off: they would make the
    footprint jump in steps of 2 MiB that no plan foresees.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = pages(max(nbytes, 1))
        self._map = mmap.mmap(-1, self.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            try:
                self._map.madvise(mmap.MADV_NOHUGEPAGE)
            except OSError:  # a kernel without huge pages
                pass
        self._bytes = np.frombuffer(self._map, dtype=np.uint8)
        self.address = int(self._bytes.__array_interface__["data"][0])

    def view(self, offset: int, shape: tuple[int, ...], dtype: Any, row_stride: int | None = None) -> np.ndarray:
        """An array over bytes of the mapping. ``row_stride``: distance in elements between rows of the last axis, if not dense."""
        dtype = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        if row_stride is None or not shape or row_stride == shape[-1]:
            return self._bytes[offset : offset + count * dtype.itemsize].view(dtype).reshape(shape)
        rows = count // shape[-1] if shape[-1] else 0
        flat = self._bytes[offset : offset + ((rows - 1) * row_stride + shape[-1]) * dtype.itemsize].view(dtype)
        matrix = np.lib.stride_tricks.as_strided(flat, (rows, shape[-1]), (row_stride * dtype.itemsize, dtype.itemsize))
        strides = [dtype.itemsize, row_stride * dtype.itemsize]
        for extent in reversed(shape[1:-1]):
            strides.append(strides[-1] * extent)
        return np.lib.stride_tricks.as_strided(matrix, shape, tuple(reversed(strides[: len(shape)])))

    def buffer(self, offset: int, nbytes: int) -> np.ndarray:
        """Bytes ``offset .. offset + nbytes``."""
        return self._bytes[offset : offset + nbytes]

    def release(self) -> None:
        """Give every page back to the system; the contents are lost, the mapping stays."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Unmap, as soon as no view is left."""
        self._bytes = np.empty(0, dtype=np.uint8)
        try:
            self._map.close()
        except BufferError:  # a view is still held somewhere; at least its pages go
            self._map.madvise(mmap.MADV_DONTNEED)
