# cython: language_level=3, boundscheck=False, wraparound=False
"""Streaming loader: reads extents of a container straight into memory that the caller owns.

Bytes go from the file to their final place with pread (the page cache is used, but no second copy exists in this process) and are
checked group by group while they are still in cache. What does not stay in memory is read again in every run by :class:`ReadAhead`.
Nothing here knows the container's format.
"""
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.stdint cimport int64_t, uint32_t, uint8_t, uintptr_t
from libc.errno cimport EINTR, errno
from libc.string cimport strerror

cdef extern from "unistd.h" nogil:
    long pread(int fd, void *buffer, size_t count, int64_t offset)

cdef extern from "checksum.h" nogil:
    uint32_t ei_crc32c(uint32_t value, const void *bytes, size_t count)

cdef extern from "readahead.h" nogil:
    ctypedef struct ei_range:
        int64_t offset, length, to, after
        uint32_t crc
    ctypedef struct ei_reader:
        int fd, started
        const ei_range *ranges
        int64_t count, ready, released, read_ns, wait_ns, bytes
        int problem
    int EI_READER_ENDED, EI_READER_CHECKSUM
    void ei_reader_start(ei_reader *reader, uint8_t *base, int threaded)
    int ei_reader_acquire(ei_reader *reader, int64_t n)
    void ei_reader_release(ei_reader *reader, int64_t n)
    void ei_reader_stop(ei_reader *reader)

#: bytes that one checksum covers
GROUP = 256 * 1024

cdef enum:
    GROUP_BYTES = 262144


cdef int64_t fill(int fd, uint8_t *to, int64_t count, int64_t offset, int *error) noexcept nogil:
    """Read count bytes; returns how many came before the file ended or an error struck."""
    cdef int64_t done = 0
    cdef long got
    while done < count:
        got = pread(fd, to + done, <size_t>(count - done), offset + done)
        if got < 0:
            if errno == EINTR:
                continue
            error[0] = errno
            return done
        if got == 0:
            return done
        done += got
    return done


def read_extent(int fd, int64_t offset, int64_t length, uintptr_t address, list crcs):
    """Read ``length`` bytes at ``offset`` of a file to ``address`` and check them against one CRC32C per 256 KiB.

    Returns "" or what is wrong, in words. Raises OSError where the system refuses to read. The GIL is free meanwhile.
    """
    cdef int64_t groups = (length + GROUP_BYTES - 1) // GROUP_BYTES
    cdef int64_t group, start, count, got = 0
    cdef uint32_t found = 0, expected = 0
    cdef int error = 0
    if len(crcs) != groups:
        return f"expected {groups} checksums, found {len(crcs)}"
    for group in range(groups):
        start = group * GROUP_BYTES
        count = min(<int64_t>GROUP_BYTES, length - start)
        with nogil:
            got = fill(fd, <uint8_t *>address + start, count, offset + start, &error)
            if got == count:
                found = ei_crc32c(0, <uint8_t *>address + start, <size_t>count)
        if error:
            raise OSError(error, strerror(error).decode())
        if got != count:
            return f"the file ends at byte {offset + start + got}, expected {length} bytes at {offset}"
        expected = crcs[group]
        if found != expected:
            return f"checksum of bytes {offset + start} to {offset + start + count}: expected {expected:08x}, found {found:08x}"
    return ""


cdef class ReadAhead:
    """Ranges of a file, read in order by a thread that needs no interpreter while earlier ones are used.

    Args:
        fd: an open file; stays the caller's.
        ranges: (offset in the file, length, offset from the base address, CRC32C, how many earlier ranges must have been released before
            this one may be read) of each.
    """

    cdef ei_reader reader
    cdef ei_range *ranges

    def __cinit__(self, int fd, list ranges):
        cdef int64_t n = 0, count = len(ranges)
        self.ranges = <ei_range *>PyMem_RawCalloc(max(count, 1), sizeof(ei_range))
        if self.ranges == NULL:
            raise MemoryError
        for offset, length, to, crc, after in ranges:
            if length < 0 or offset < 0 or to < 0 or not 0 <= after <= n:
                raise ValueError(f"range {n}: {offset}, {length} to {to} after {after}")
            self.ranges[n].offset, self.ranges[n].length, self.ranges[n].to = offset, length, to
            self.ranges[n].crc, self.ranges[n].after = crc, after
            n += 1
        self.reader.fd = fd
        self.reader.ranges = self.ranges
        self.reader.count = count

    def __dealloc__(self):
        with nogil:
            ei_reader_stop(&self.reader)
        PyMem_RawFree(self.ranges)

    def __len__(self):
        return self.reader.count

    def start(self, uintptr_t base, bint threaded=True):
        """Begin to read range 0, its place counted from address ``base``. Ends a reading under way."""
        with nogil:
            ei_reader_start(&self.reader, <uint8_t *>base, threaded)

    def acquire(self, int64_t n):
        """Wait, without the GIL, until range ``n`` is in memory. Returns "" or what is wrong; OSError where the system refuses to read."""
        cdef int problem
        if not 0 <= n < self.reader.count:
            raise IndexError(n)
        with nogil:
            problem = ei_reader_acquire(&self.reader, n)
        if problem == 0:
            return ""
        cdef const ei_range *range = self.ranges + self.reader.ready
        if problem == EI_READER_ENDED:
            return f"the file ends before byte {range.offset + range.length}"
        if problem == EI_READER_CHECKSUM:
            return f"bytes {range.offset} to {range.offset + range.length} are not those that were there when the model was opened"
        raise OSError(problem, strerror(problem).decode())

    def release(self, int64_t n):
        """Say that the first ``n`` ranges are not needed any more."""
        with nogil:
            ei_reader_release(&self.reader, n)

    def stop(self):
        """End the thread; :meth:`start` may begin anew."""
        with nogil:
            ei_reader_stop(&self.reader)

    @property
    def threaded(self):
        """Whether a thread is reading."""
        return bool(self.reader.started)

    @property
    def statistics(self):
        """Since the last start: (bytes read, seconds spent reading, seconds that were waited for bytes)."""
        return self.reader.bytes, self.reader.read_ns * 1e-9, self.reader.wait_ns * 1e-9


def trim_allocator():
    """Give free heap memory back to the system where the C library can (glibc); True if something was given back."""
    return bool(_trim())


def bound_allocator(int arenas, int mapped):
    """Let all threads share ``arenas`` heaps, and map blocks from ``mapped`` bytes on one by one, so that freeing them gives them back.

    glibc: by default up to eight heaps per core, each with free memory of its own, and a threshold that grows with the blocks that were
    freed. True where that was possible. To be called before threads start.
    """
    return bool(_bound(arenas, mapped))


cdef extern from *:
    """
    #include <stdlib.h>
    #ifdef __GLIBC__
    #include <malloc.h>
    static int _trim(void) { return malloc_trim(0); }
    static int _bound(int arenas, int mapped) { return mallopt(M_ARENA_MAX, arenas) & mallopt(M_MMAP_THRESHOLD, mapped); }
    #else
    static int _trim(void) { return 0; }
    static int _bound(int arenas, int mapped) { (void)arenas; (void)mapped; return 0; }
    #endif
    """
    int _trim()
    int _bound(int arenas, int mapped)
