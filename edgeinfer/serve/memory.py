"""Memory of requests: the account that admits their bytes, and the bodies themselves, in memory or in a private spill file.

A body's bytes are admitted before the first of them is received: in memory where the account has room, else in a file without a name
in the spill folder (its pages belong to the page cache, not to this process), else not at all.
"""

from __future__ import annotations

import os
import threading

from .protocol import Refusal

#: tensors behind the JSON start at multiples of this many bytes, so that kernels read them where they are
ALIGNMENT = 64
#: bytes that a body of unknown length (chunked) takes in memory before it goes to a file
CHUNKED_IN_MEMORY = 64 << 10
#: bytes of objects that a request takes beside its body: head, parsed JSON, its place in the queue (measured over 450: 2.4 KiB)
REQUEST_BYTES = 4 << 10
#: part of the account up to which bodies wait in memory; the rest is for what cannot go to a file: connections, requests, replies
BODY_SHARE = 0.75
#: seconds a client is told to wait when memory is short
RETRY_AFTER = 1


class Account:
    """Bytes that may be taken, and those that are. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.peak = 0
        self._lock = threading.Lock()

    def take(self, nbytes: int, share: float = 1.0) -> bool:
        """Take ``nbytes`` if no more than ``share`` of everything is taken then."""
        with self._lock:
            if self.used + nbytes > self.limit * share:
                return False
            self.used += nbytes
            self.peak = max(self.peak, self.used)
            return True

    def give(self, nbytes: int) -> None:
        """Give ``nbytes`` back."""
        with self._lock:
            self.used -= nbytes


class Hold:
    """What one request has taken from an account; given back at once, and only once."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._held = 0
        self._lock = threading.Lock()

    def take(self, nbytes: int) -> None:
        """Take more. Raises Refusal: 413 where no request may ever have so much, 503 where others have it now."""
        if self._held + nbytes > self._account.limit:
            raise Refusal(413, f"the request needs {self._held + nbytes} bytes of memory, request_memory is {self._account.limit}")
        if not self._account.take(nbytes):
            raise Refusal(503, "too many bytes of requests are waiting", RETRY_AFTER)
        self._held += nbytes

    def give(self, nbytes: int | None = None) -> None:
        """Give back ``nbytes``, or everything."""
        with self._lock:
            nbytes = self._held if nbytes is None else min(nbytes, self._held)
            self._held -= nbytes
        self._account.give(nbytes)


class Body:
    """The body of a request as it arrives; the buffer that the HTTP server appends to, and a source of tensors.

    Args:
        memory, disk: accounts of bytes in memory and in spill files.
        folder: where spill files are made.
        length: declared length in bytes, None where the body is chunked.
        header_length: bytes of JSON in front of binary tensors, for their alignment.

    Raises Refusal (503) where neither account has room.
    """

    def __init__(self, memory: Account, disk: Account, folder: str, length: int | None, header_length: int = 0) -> None:
        self._memory, self._disk, self._folder = memory, disk, folder
        self._lead = -header_length % ALIGNMENT
        self._held = 0
        self._spilled = 0
        self._file: int | None = None
        self._room: bytearray | None = None
        self._reading = threading.Lock()  # a file that is read must not be closed: its number may be another's the next moment
        self.received = 0
        room = (length if length is not None else CHUNKED_IN_MEMORY) + ALIGNMENT
        if memory.take(room + REQUEST_BYTES, BODY_SHARE):
            self._held = room + REQUEST_BYTES
            self._room = bytearray(room)  # zero pages are not resident before bytes arrive
        elif memory.take(REQUEST_BYTES):
            self._held = REQUEST_BYTES
            self._file = _nameless(folder)
        else:
            raise Refusal(503, "too many requests are waiting", RETRY_AFTER)

    def __len__(self) -> int:
        return self.received

    def append(self, data: bytes) -> None:
        """Take received bytes. Raises Refusal where a spill file has no room left."""
        at = self._lead + self.received
        if self._room is not None and at + len(data) > len(self._room):
            self._spill()
        if self._room is not None:
            self._room[at : at + len(data)] = data
        else:
            self._write(data)
        self.received += len(data)

    def rest(self, length: int) -> memoryview | None:
        """Where the next bytes of a body of ``length`` bytes belong, for receiving without a copy; None where they go to a file."""
        if self._room is None:
            return None
        return memoryview(self._room)[self._lead + self.received : self._lead + length]

    def _spill(self) -> None:
        room, self._room = self._room, None
        assert room is not None
        self._file = _nameless(self._folder)
        self._write(memoryview(room)[self._lead : self._lead + self.received])
        self._memory.give(self._held - REQUEST_BYTES)
        self._held = REQUEST_BYTES

    def _write(self, data: bytes | memoryview) -> None:
        if self._file is None:
            raise Refusal(503, "the request was given up", RETRY_AFTER)
        if not self._disk.take(len(data)):
            raise Refusal(503, "too many bytes of requests are waiting", RETRY_AFTER)
        self._spilled += len(data)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            raise Refusal(503, f"the request cannot be kept: {error.strerror}", RETRY_AFTER) from None

    def view(self, first: int, last: int) -> memoryview | None:
        """Bytes ``first .. last`` where they are in memory, else None."""
        room = self._room
        if room is None:
            return None
        return memoryview(room)[self._lead + first : self._lead + last]

    def read_into(self, target: memoryview, first: int) -> None:
        """Copy bytes from ``first`` on into ``target``."""
        room = self._room
        if room is not None:
            target[:] = memoryview(room)[self._lead + first : self._lead + first + len(target)]
            return
        done = 0
        with self._reading:
            while done < len(target):
                got = os.preadv(self._file, [target[done:]], first + done) if self._file is not None else 0
                if got <= 0:
                    raise Refusal(503, "the request was given up", RETRY_AFTER)
                done += got

    @property
    def in_memory(self) -> bool:
        return self._room is not None

    def close(self) -> None:
        """Give everything back."""
        with self._reading:
            self._room = None
            held, spilled, self._held, self._spilled = self._held, self._spilled, 0, 0
            file, self._file = self._file, None
            if file is not None:
                os.close(file)
        self._memory.give(held)
        self._disk.give(spilled)


def _nameless(folder: str) -> int:
    """A file without a name, readable by nobody else; gone when it is closed, also by a crash."""
    try:
        return os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC | os.O_EXCL, 0o600)
    except OSError:
        pass  # a file system without O_TMPFILE: a name for a moment
    try:
        path = os.path.join(folder, f".request-{os.getpid()}-{threading.get_ident():x}")
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.unlink(path)
        return file
    except OSError as error:
        raise Refusal(503, f"no room for the request: {folder}: {error.strerror}", RETRY_AFTER) from None
