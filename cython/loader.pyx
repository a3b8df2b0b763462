# cython: language_level=3, boundscheck=False, wraparound=False
"""Streaming loader: reads extents of a container straight into memory that the caller owns.

Bytes go from the file to their final place with pread (the page cache is used, but no second copy exists in this process) and are
checked group by group while they are still in cache. Nothing here knows the container's format.
"""
from libc.stdint cimport int64_t, uint32_t, uint8_t, uintptr_t
from libc.errno cimport EINTR, errno
from libc.string cimport strerror

cdef extern from "unistd.h" nogil:
    long pread(int fd, void *buffer, size_t count, int64_t offset)

cdef extern from "checksum.h" nogil:
    uint32_t ei_crc32c(uint32_t value, const void *bytes, size_t count)

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


def trim_allocator():
    """Give free heap memory back to the system where the C library can (glibc); True if something was given back."""
    return bool(_trim())


def limit_allocator_arenas(int count):
    """Let all threads share ``count`` heaps (glibc; by default up to eight per core, each with free memory of its own).

    True where that was possible. To be called before threads start.
    """
    return bool(_limit_arenas(count))


cdef extern from *:
    """
    #include <stdlib.h>
    #ifdef __GLIBC__
    #include <malloc.h>
    static int _trim(void) { return malloc_trim(0); }
    static int _limit_arenas(int count) { return mallopt(M_ARENA_MAX, count); }
    #else
    static int _trim(void) { return 0; }
    static int _limit_arenas(int count) { (void)count; return 0; }
    #endif
    """
    int _trim()
    int _limit_arenas(int count)
