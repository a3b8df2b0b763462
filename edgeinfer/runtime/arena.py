"""Memory that can be given back: private anonymous mappings, and the only place that makes NumPy views of them."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..errors import UsageError

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
        try:
            self._map = mmap.mmap(-1, self.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:  # RLIMIT_DATA, overcommit: to the caller no different from a failing malloc
            raise MemoryError(f"{self.nbytes} bytes could not be mapped: {error.strerror}") from None
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


class Arena:
    """The changing memory of one or several sessions: one mapping, as large as the largest of their plans.

    Sessions that are given the same arena take turns: a run waits until the one under way is over. A session that is given none has one of
    its own. Nothing in an arena outlives a run.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._owner: int | None = None
        self._mapping: Mapping | None = None
        #: whether pages may be resident
        self.touched = False

    @property
    def nbytes(self) -> int:
        """Size of the mapping now."""
        return self._mapping.nbytes if self._mapping is not None else 0

    @property
    def resident_bytes(self) -> int:
        """Most bytes of it that are resident now."""
        return self.nbytes if self.touched else 0

    @contextmanager
    def turn(self, nbytes: int) -> Iterator[Mapping]:
        """The mapping, of at least ``nbytes``, for one run. Raises UsageError from inside of a run in the same arena."""
        if self._owner == threading.get_ident():
            raise UsageError("a session cannot run inside a run of another session that shares its arena")
        with self._turn:
            self._owner = threading.get_ident()
            try:
                if self._mapping is None or self._mapping.nbytes < nbytes:
                    self._drop()
                    self._mapping = Mapping(nbytes)
                self.touched = True
                yield self._mapping
            finally:
                self._owner = None

    def reserve(self, nbytes: int) -> None:
        """Have at least ``nbytes`` now, so that a run cannot fail for it; a run under way keeps what it has and the next one grows."""
        if self._turn.acquire(blocking=False):
            try:
                if self._mapping is None or self._mapping.nbytes < nbytes:
                    self._drop()
                    self._mapping = Mapping(nbytes)
            finally:
                self._turn.release()

    def release(self) -> None:
        """Give the pages back, between runs; the next run takes them again."""
        if self._owner == threading.get_ident() or self._turn.acquire(blocking=False):
            try:
                if self._mapping is not None:
                    self._mapping.release()
                self.touched = False
            finally:
                if self._owner is None:
                    self._turn.release()

    def close(self) -> None:
        """Unmap."""
        with self._turn:
            self._drop()

    def _drop(self) -> None:
        if self._mapping is not None:
            self._mapping.close()
            self._mapping = None
        self.touched = False
