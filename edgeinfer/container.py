"""The ``.edge`` file: a network and its compressed weights.

All integers are little endian. A file is, from its first byte to its last, without gaps::

    preamble    64 bytes    magic, version
    extents                 one per tensor, any order, each a multiple of 64 bytes
    header                  JSON in UTF-8, at most 16 MiB
    trailer     80 bytes    where the header is, digests

preamble::

     0   8  magic  89 45 44 47 45 0D 0A 1A  ("\\x89EDGE\\r\\n\\x1a": a file that went through a text conversion is noticed)
     8   4  version of the format, 1
    12  48  zeros
    60   4  CRC32C of bytes 0..59

trailer::

     0   8  offset of the header
     8   8  length of the header
    16   4  CRC32C of the header
    20   4  zeros
    24  32  SHA-256 of everything before the trailer
    56   8  length of the file
    64   4  zeros
    68   4  CRC32C of bytes 0..67
    72   8  magic  45 44 47 45 2D 45 4E 44  ("EDGE-END")

header: an object with exactly the keys ``graph`` (:meth:`edgeinfer.graph.Graph.to_json`), ``metadata`` (an object, free) and ``entries``
(a list of objects with the fields of :class:`Entry`). Extents cover bytes 64 to the header exactly: no two overlap and nothing lies between
them. Every extent has a CRC32C for each 256 KiB of it (the last one for the rest), in ``crcs``.

An extent holds the parts of one tensor, each at a multiple of 64 bytes, zeros between them. A *plain* tensor has one part, ``plain``: its
elements in C order. A *coded* tensor is a matrix of ``rows`` x ``k`` cut into tiles (``cython/kernels/weights.h``) with the parts

=============== ==============================================================================================================
``table``       float32 values of the symbols; absent for raw floats
``base_table``  float32 values of the two signs; only with two planes
``row_scale``   float16 factor of each row; absent where all are 1
``modelN``      plane N: code lengths, a nibble per symbol (huffman); u16 frequency per symbol (rans)
``atN``         plane N: u32 offsets of tiles and of the end (huffman, rans, gaps)
``planeN``      plane N: the tiles (``cython/kernels/decode_*.c``)
=============== ==============================================================================================================

A weight is ``table[symbol] * row_scale[row]``; with two planes the symbol is that of plane 0 (the sign) + 2 x that of plane 1 (the bucket).

Everything in a file is checked before it is believed; what is wrong is a :class:`~edgeinfer.errors.ContainerError` that names the file,
what was expected and what was found. Contents of tiles are checked by their CRC when they are read and bounded by the decoders.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ContainerError
from .graph import Graph
from .kernels.codec import OVERREAD, CodedTensor, crc32c

if TYPE_CHECKING:
    from .coders.tensor import Encoded

MAGIC = b"\x89EDGE\r\n\x1a"
END_MAGIC = b"EDGE-END"
VERSION = 1
PREAMBLE = struct.Struct("<8sI48xI")
TRAILER = struct.Struct("<QQI4x32sQ4xI8s")
#: a header is never larger; 16 MiB describe some 50 000 tensors
HEADER_LIMIT = 16 << 20
ALIGN = 64
#: bytes of an extent that one CRC32C covers
GROUP = 256 << 10

DTYPES = ("float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
RAW_CODERS = ("raw_f32", "raw_f16", "raw_bf16", "raw_u8")


@dataclass(frozen=True)
class Extent:
    """A run of bytes of the file: absolute offset and length."""

    offset: int
    length: int


@dataclass(frozen=True)
class Entry:
    """One tensor of a container.

    Attributes:
        name, shape, dtype: of the tensor as the graph sees it.
        rows, k, groups, k_chunk: the matrix of a coded tensor and its cut; 0 for plain tensors.
        quantizer, options, coder: names, and the quantizer's constructor keywords; ``""`` and empty for plain tensors.
        max_error: the largest difference of a decoded weight to the original.
        extent: where the bytes are.
        crcs: CRC32C of each 256 KiB of the extent.
        parts: name -> (offset in the extent, bytes).
        planes: ``coder``, ``bits``, ``lanes``, ``extra`` of each plane (``ei_plane`` in weights.h).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    rows: int = 0
    k: int = 0
    groups: int = 0
    k_chunk: int = 0
    quantizer: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    coder: str = ""
    max_error: float = 0.0
    extent: Extent = Extent(0, 0)
    crcs: tuple[int, ...] = ()
    parts: dict[str, tuple[int, int]] = field(default_factory=dict)
    planes: tuple[dict[str, Any], ...] = ()

    @property
    def is_plain(self) -> bool:
        return not self.planes

    @property
    def weights(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Stored bytes, alignment included."""
        return self.extent.length

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per element, tables and scales included, alignment left out."""
        return 8 * sum(size for _, size in self.parts.values()) / max(self.weights, 1)

    def to_json(self) -> dict[str, Any]:
        """The entry as JSON values, as the header stores it."""
        value = {f.name: getattr(self, f.name) for f in fields(self)}
        value["extent"] = [self.extent.offset, self.extent.length]
        return value


def _fail(path: str, what: str) -> ContainerError:
    return ContainerError(f"{path}: {what}")


def _integer(value: Any, least: int, most: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{what}: expected an integer in {least}..{most}, found {value!r:.60}")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what}: expected text, found {value!r:.60}")
    return value


def _entry(value: Any) -> Entry:
    """An entry from the header. Raises ValueError, KeyError or TypeError where it is not one."""
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found {value!r:.60}")
    known = {f.name for f in fields(Entry)}
    if set(value) != known:
        raise ValueError(f"expected the fields {', '.join(sorted(known))}, found {', '.join(sorted(map(str, value)))}"[:500])
    size = 1 << 56
    shape = tuple(_integer(n, 0, size, "shape") for n in value["shape"])
    if len(shape) > 32 or math.prod(shape) > size:
        raise ValueError(f"shape: expected at most 32 axes and 2^56 elements, found {list(shape)!r:.80}")
    if value["dtype"] not in DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, found {value['dtype']!r:.60}")
    offset, length = value["extent"]
    extent = Extent(_integer(offset, 0, size, "offset"), _integer(length, 0, size, "length"))
    if extent.offset % ALIGN or extent.length % ALIGN:
        raise ValueError(f"extent: expected multiples of {ALIGN}, found {extent.offset} and {extent.length}")
    crcs = tuple(_integer(crc, 0, 0xFFFFFFFF, "crcs") for crc in value["crcs"])
    groups = -(-extent.length // GROUP)
    if len(crcs) != groups:
        raise ValueError(f"crcs: expected {groups}, found {len(crcs)}")
    parts = {}
    for part, (begin, nbytes) in value["parts"].items():
        parts[part] = (_integer(begin, 0, extent.length, f"part {part!r}"), _integer(nbytes, 0, extent.length, f"part {part!r}"))
        if begin % ALIGN or begin + nbytes > extent.length:
            raise ValueError(f"part {part!r}: bytes {begin}..{begin + nbytes} of an extent of {extent.length} (at multiples of {ALIGN})")
    planes = []
    for plane in value["planes"]:
        if not isinstance(plane, dict) or set(plane) != {"coder", "bits", "lanes", "extra"}:
            raise ValueError(f"planes: expected coder, bits, lanes and extra, found {plane!r:.80}")
        numbers = {key: _integer(plane[key], 0, 1 << 16, f"planes: {key}") for key in ("bits", "lanes", "extra")}
        planes.append({"coder": _text(plane["coder"], "planes: coder"), **numbers})
    max_error = value["max_error"]
    if isinstance(max_error, bool) or not isinstance(max_error, (int, float)) or not 0 <= max_error < math.inf:
        raise ValueError(f"max_error: expected a number from 0, found {max_error!r:.60}")
    if not isinstance(value["options"], dict):
        raise ValueError(f"options: expected an object, found {value['options']!r:.60}")
    entry = Entry(
        name=_text(value["name"], "name"),
        shape=shape,
        dtype=value["dtype"],
        rows=_integer(value["rows"], 0, 1 << 40, "rows"),
        k=_integer(value["k"], 0, 1 << 40, "k"),
        groups=_integer(value["groups"], 0, 1 << 40, "groups"),
        k_chunk=_integer(value["k_chunk"], 0, 1 << 40, "k_chunk"),
        quantizer=_text(value["quantizer"], "quantizer"),
        coder=_text(value["coder"], "coder"),
        options=value["options"],
        max_error=float(max_error),
        extent=extent,
        crcs=crcs,
        parts=parts,
        planes=tuple(planes),
    )
    if entry.is_plain:
        expected = entry.weights * np.dtype(entry.dtype).itemsize
        if parts != {"plain": (0, expected)}:
            raise ValueError(f"parts: expected 'plain' of {expected} bytes at 0, found {parts!r:.80}")
        if entry.rows or entry.k:
            raise ValueError(f"expected no rows in a tensor without planes, found {entry.rows} x {entry.k}")
    else:
        if entry.dtype not in ("float32", "float64", "float16"):
            raise ValueError(f"dtype of coded weights: expected floats, found {entry.dtype}")
        if entry.rows * entry.k != entry.weights:
            raise ValueError(f"expected rows x k = {entry.weights} elements of shape {list(shape)}, found {entry.rows} x {entry.k}")
        CodedTensor(entry)  # checks everything else that can be checked without the bytes
    return entry


class Reader:
    """An open container: header, entries, bytes of tensors.

    Args:
        path: the file.

    Raises:
        ContainerError: the file is missing, truncated, damaged, of an unknown version, or contradicts itself.

    Attributes:
        graph, entries (by name, in stored order), metadata: contents of the header.
        file_bytes: size of the file.
        digest: SHA-256 of the contents as the trailer states it; names a container (:meth:`verify` checks it).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            self._file = open(self.path, "rb", buffering=0)
        except FileNotFoundError:
            raise _fail(self.path, "no such file") from None
        except OSError as error:
            raise _fail(self.path, f"cannot be read: {error.strerror}") from None
        try:
            self._open()
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> None:
        try:
            self.file_bytes = os.fstat(self._file.fileno()).st_size
            preamble = self._pread(0, min(PREAMBLE.size, self.file_bytes), "preamble")
        except OSError as error:
            raise _fail(self.path, f"cannot be read: {error.strerror}") from None
        start = preamble[: len(MAGIC)]
        if start != MAGIC[: len(start)] or not start:
            raise _fail(self.path, f"not an edgeinfer container: expected to begin with {MAGIC!r}, found {start!r}")
        if self.file_bytes < PREAMBLE.size + TRAILER.size:
            raise _fail(self.path, f"truncated: expected at least {PREAMBLE.size + TRAILER.size} bytes, found {self.file_bytes}")
        _, version, crc = PREAMBLE.unpack(preamble)
        if version != VERSION:
            raise _fail(self.path, f"expected format version {VERSION}, found {version}; write the file again with this edgeinfer")
        self._check_crc("preamble", crc, preamble[:-4])

        end = self.file_bytes - TRAILER.size
        trailer = self._pread(end, TRAILER.size, "trailer")
        offset, length, header_crc, self.digest, file_bytes, crc, magic = TRAILER.unpack(trailer)
        if magic != END_MAGIC:
            raise _fail(self.path, f"truncated or damaged: expected {END_MAGIC!r} at the end, found {magic!r} at {end + 72}")
        self._check_crc("trailer", crc, trailer[: -4 - len(END_MAGIC)])
        if file_bytes != self.file_bytes:
            raise _fail(self.path, f"expected {file_bytes} bytes, found {self.file_bytes}")
        if length > HEADER_LIMIT or offset < PREAMBLE.size or offset % ALIGN or offset + length != end:
            expected = f"expected a header of at most {HEADER_LIMIT} bytes that ends at {end}"
            raise _fail(self.path, f"{expected}, found {length} bytes at {offset}")
        header = self._pread(offset, length, "header")
        self._check_crc("header", header_crc, header)
        try:
            value = json.loads(header)
            if not isinstance(value, dict) or set(value) != {"graph", "metadata", "entries"}:
                raise ValueError("expected an object of graph, metadata and entries")
            if not isinstance(value["metadata"], dict):
                raise ValueError(f"metadata: expected an object, found {value['metadata']!r:.60}")
            self.metadata: dict[str, Any] = value["metadata"]
            self.graph = Graph.from_json(value["graph"])
            self.entries = self._read_entries(value["entries"], offset)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError) as error:
            text = f"missing {error}" if isinstance(error, KeyError) else str(error)
            raise _fail(self.path, f"header: {text}") from None

    def _read_entries(self, values: Any, end: int) -> dict[str, Entry]:
        if not isinstance(values, list):
            raise ValueError("entries: expected a list")
        entries: dict[str, Entry] = {}
        for number, value in enumerate(values):
            try:
                entry = _entry(value)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError, ContainerError) as error:
                name = value.get("name", number) if isinstance(value, dict) else number
                text = f"missing {error}" if isinstance(error, KeyError) else str(error)
                raise ValueError(f"entry {name!r:.80}: {text}") from None
            if entry.name in entries:
                raise ValueError(f"entry {entry.name!r:.80}: the name occurs twice")
            entries[entry.name] = entry
        at = PREAMBLE.size
        for entry in sorted(entries.values(), key=lambda e: (e.extent.offset, e.extent.length)):
            if entry.extent.offset != at:
                raise ValueError(f"entry {entry.name!r:.80}: expected its extent at {at}, found {entry.extent.offset} (extents must touch)")
            at += entry.extent.length
        if at != end:
            raise ValueError(f"expected extents up to the header at {end}, found them to end at {at}")
        return entries

    def _pread(self, offset: int, length: int, what: str) -> bytes:
        parts, got = [], 0
        while got < length:
            part = os.pread(self._file.fileno(), length - got, offset + got)
            if not part:
                raise _fail(self.path, f"{what}: expected {length} bytes at {offset}, found {got}")
            parts.append(part)
            got += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check_crc(self, what: str, expected: int, content: bytes) -> None:
        found = crc32c(content)
        if found != expected:
            raise _fail(self.path, f"{what}: expected checksum {expected:08x}, found {found:08x}")

    def read(self, entry: Entry) -> memoryview:
        """The bytes of a tensor's extent, checked, and ``OVERREAD`` zeros behind the extent (which the result includes).

        The result is aligned to 64 bytes and can be given to :meth:`CodedTensor.attach`. Raises ContainerError where bytes are damaged.
        """
        length = entry.extent.length
        room = np.zeros(length + OVERREAD + ALIGN, np.uint8)
        begin = -room.ctypes.data % ALIGN
        out = room.data[begin : begin + length + OVERREAD]
        for number, crc in enumerate(entry.crcs):
            first = number * GROUP
            content = self._pread(entry.extent.offset + first, min(GROUP, length - first), f"tensor {entry.name!r}")
            self._check_crc(f"tensor {entry.name!r}, bytes {first} to {first + len(content)}", crc, content)
            out[first : first + len(content)] = content
        return out

    def plain(self, name: str) -> np.ndarray:
        """A plain tensor."""
        entry = self.entries[name]
        begin, size = entry.parts["plain"]
        return np.frombuffer(self.read(entry)[begin : begin + size], entry.dtype).reshape(entry.shape)

    def coded(self, name: str) -> CodedTensor:
        """A coded tensor with its bytes attached."""
        entry = self.entries[name]
        tensor = CodedTensor(entry)
        tensor.attach(self.read(entry))
        return tensor

    def decode(self, name: str, kernels: str = "plain") -> np.ndarray:
        """The values of any tensor, in its shape; coded ones as float32."""
        entry = self.entries[name]
        return self.plain(name) if entry.is_plain else self.coded(name).decode(kernels).reshape(entry.shape)

    def verify(self) -> None:
        """Check every byte: the digest of the whole file, the checksums of all extents, and that coded tensors decode.

        Raises ContainerError that names what is damaged.
        """
        import hashlib

        for entry in self.entries.values():
            content = self.read(entry)
            if not entry.is_plain:
                tensor = CodedTensor(entry)
                tensor.attach(content)
                tensor.decode_seconds()
        digest = hashlib.sha256()
        end = self.file_bytes - TRAILER.size
        for first in range(0, end, 1 << 20):
            digest.update(self._pread(first, min(1 << 20, end - first), "contents"))
        if digest.digest() != self.digest:
            raise _fail(self.path, f"expected SHA-256 {self.digest.hex()}, found {digest.hexdigest()}")

    def fileno(self) -> int:
        """The open file's descriptor; the reader keeps it open until :meth:`close`."""
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _lay_out(parts: Mapping[str, Any]) -> tuple[dict[str, tuple[int, int]], Iterable[Any]]:
    """Offsets of parts, and the chunks of bytes of the extent in order."""
    offsets: dict[str, tuple[int, int]] = {}
    chunks: list[Any] = []
    at = 0
    for name, array in parts.items():
        content = np.ascontiguousarray(array)
        if content.dtype.byteorder == ">":
            content = content.astype(content.dtype.newbyteorder("<"))
        content = content.reshape(-1).view(np.uint8)
        offsets[name] = (at, content.nbytes)
        chunks += [content, np.zeros(-content.nbytes % ALIGN, np.uint8)]
        at += content.nbytes + len(chunks[-1])
    return offsets, chunks


def _coded_entry(name: str, shape: tuple[int, ...], dtype: str, encoded: Encoded) -> dict[str, Any]:
    return {
        "name": name,
        "shape": tuple(int(n) for n in shape),
        "dtype": dtype,
        "planes": encoded.planes,
        **{key: getattr(encoded, key) for key in ("rows", "k", "groups", "k_chunk", "quantizer", "options", "coder", "max_error")},
    }


def coded_tensor(name: str, shape: tuple[int, ...], encoded: Encoded) -> CodedTensor:
    """A coded tensor in memory, without a file: what :meth:`Reader.coded` would give after :meth:`Writer.add_coded`."""
    offsets, chunks = _lay_out(encoded.parts)
    content = np.concatenate([*chunks, np.zeros(OVERREAD, np.uint8)])
    room = np.zeros(len(content) + ALIGN, np.uint8)
    begin = -room.ctypes.data % ALIGN
    room[begin : begin + len(content)] = content
    extent = Extent(0, len(content) - OVERREAD)
    tensor = CodedTensor(Entry(**_coded_entry(name, shape, "float32", encoded), extent=extent, parts=offsets))
    tensor.attach(room[begin : begin + len(content)])
    return tensor


class Writer:
    """Writes a container beside ``path`` and renames it into place when it is complete.

    A context manager: leaving it normally finishes the file, leaving it by any exception removes what was written. One tensor is held at a
    time.

    Args:
        path: the file to make; replaced if it exists.
        graph: the network. metadata: JSON values to keep with it (recipe, origin).
    """

    def __init__(self, path: str | os.PathLike[str], graph: Graph, metadata: dict[str, Any] | None = None) -> None:
        self.path = os.fspath(path)
        self.graph = graph
        self.metadata = dict(metadata or {})
        self.entries: dict[str, Entry] = {}
        self._temporary = f"{self.path}.{os.getpid()}.partial"
        self._file: Any = None
        self._begun = False  # the temporary file may exist

    def __enter__(self) -> Writer:
        import hashlib

        self._digest = hashlib.sha256()
        self._at = 0
        try:
            # said before it is so: a signal may strike as soon as the file is there
            self._begun = True
            try:
                self._file = open(self._temporary, "wb")
            except OSError as error:
                raise _fail(self.path, f"cannot be written: {error.strerror}") from None
            head = PREAMBLE.pack(MAGIC, VERSION, 0)[:-4]
            self._write(head + struct.pack("<I", crc32c(head)))
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._remove()
            return
        try:
            self._finish()
        except BaseException:
            self._remove()
            raise

    def _remove(self) -> None:
        if not self._begun:
            return
        if self._file is not None:
            # closing flushes, which may fail for the reason that brought us here (a full disk)
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
        with contextlib.suppress(OSError):
            os.unlink(self._temporary)
        self._begun = False

    def _write(self, content: Any) -> None:
        try:
            self._file.write(content)
        except OSError as error:
            raise _fail(self.path, f"cannot be written: {error.strerror}") from None
        self._digest.update(content)
        self._at += len(content)

    def _add(self, parts: Mapping[str, Any], described: dict[str, Any]) -> Entry:
        if described["name"] in self.entries:
            raise ValueError(f"tensor {described['name']!r} is added twice")
        offsets, chunks = _lay_out(parts)
        begin = self._at
        crcs: list[int] = []
        crc, room = 0, GROUP
        for chunk in chunks:
            view = memoryview(chunk)
            while len(view):
                now = view[:room]
                crc = crc32c(now, crc)
                self._write(now)
                room -= len(now)
                view = view[len(now) :]
                if room == 0:
                    crcs.append(crc)
                    crc, room = 0, GROUP
        if room != GROUP:
            crcs.append(crc)
        entry = Entry(**described, extent=Extent(begin, self._at - begin), crcs=tuple(crcs), parts=offsets)
        self.entries[entry.name] = entry
        return entry

    def add_plain(self, name: str, array: np.ndarray) -> Entry:
        """Add a tensor as it is. Raises ValueError for a dtype that containers do not have or a name that is taken."""
        if array.dtype.name not in DTYPES:
            raise ValueError(f"tensor {name!r}: dtype {array.dtype} cannot be stored")
        return self._add({"plain": array}, {"name": name, "shape": tuple(array.shape), "dtype": array.dtype.name})

    def add_coded(self, name: str, shape: tuple[int, ...], dtype: str, encoded: Encoded) -> Entry:
        """Add an encoded tensor (:func:`edgeinfer.coders.encode_tensor`) of a logical shape and original dtype."""
        if math.prod(shape) != encoded.rows * encoded.k:
            raise ValueError(f"tensor {name!r}: shape {tuple(shape)} is not {encoded.rows} x {encoded.k}")
        return self._add(encoded.parts, _coded_entry(name, shape, dtype, encoded))

    def _finish(self) -> None:
        entries = [entry.to_json() for entry in self.entries.values()]
        value = {"graph": self.graph.to_json(), "metadata": self.metadata, "entries": entries}
        header = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
        if len(header) > HEADER_LIMIT:
            raise _fail(self.path, f"the header takes {len(header)} bytes, at most {HEADER_LIMIT} are possible")
        begin = self._at
        self._write(header)
        digest = self._digest.digest()
        tail = TRAILER.pack(begin, len(header), crc32c(header), digest, self._at + TRAILER.size, 0, END_MAGIC)[: -4 - len(END_MAGIC)]
        self._write(tail + struct.pack("<I", crc32c(tail)) + END_MAGIC)
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._temporary, self.path)
            self._file = None
            self._sync_folder()
        except OSError as error:
            raise _fail(self.path, f"cannot be written: {error.strerror}") from None

    def _sync_folder(self) -> None:
        """Make the rename itself durable; some file systems do not offer that for folders."""
        with contextlib.suppress(OSError):
            folder = os.open(os.path.dirname(self.path) or ".", os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
