"""Where the weights of a container live while it runs.

Each tensor has one residency, chosen by the plan (:mod:`edgeinfer.runtime.residency`) and never held twice: *compressed* in one mapping
that the sessions of a container share, *decoded* to floats in that mapping, or *streamed*: runs of its rows are read from the file again in
every run. Loading reads every byte once, checked against the container's CRC32C; for rows that will be streamed a checksum of their own is
kept, so that later reads take exactly their bytes.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..container import GROUP, Entry, Reader
from ..errors import ContainerError
from ..graph import TensorSpec
from ..kernels.codec import CodedRows, CodedTensor, available_kernels, crc32c
from ..kernels.loader import read_extent
from .arena import Mapping
from .layout import align
from .lowering import Constant
from .residency import COMPRESSED, Piece, Residency

#: bytes readable behind every tensor: decoders load whole vectors (EI_OVERREAD in weights.h)
OVERREAD = 64


class _Source:
    """An open container that is closed when the last store lets go of it."""

    def __init__(self, path: str) -> None:
        self.reader = Reader(path)

    def __del__(self) -> None:
        if hasattr(self, "reader"):
            self.reader.close()


class WeightStore:
    """The weights of one container in one residency.

    Args:
        path: an ``.edge`` file. It stays open: what is read later comes from the file that was checked now, even if another takes its name.
        base_only: use the sign planes of ``sign``-quantised tensors alone.
        residency: where each tensor lives.
        source: another store of the same container, to share its open file.

    Attributes:
        digest: SHA-256 of the container, as hexadecimal digits.
        nbytes: resident bytes that loading takes: compressed and decoded tensors; ``owned_bytes``: decode tables built beside them.
        loading_bytes: memory that loading takes for a time beside them.
        users: sessions that run from this store.
        lock: held while it is loaded or planned from. Planning attaches tables for a time, which loading replaces.
    """

    def __init__(
        self, path: str, base_only: bool = False, residency: Residency = COMPRESSED, source: WeightStore | None = None
    ) -> None:
        self.path = path
        self.base_only = base_only
        self.residency = residency
        self.users = 0
        self.lock = threading.RLock()
        self._source: _Source = _Source(path) if source is None else source._source
        reader = self._source.reader
        self.graph = reader.graph
        self.metadata = reader.metadata
        self.digest = reader.digest.hex()
        self.entries: dict[str, Entry] = dict(reader.entries)
        self.constants: dict[str, Constant] = {}
        self.coded: dict[str, CodedTensor] = {}
        self._tables: dict[str, np.ndarray] = {}
        for name, entry in self.entries.items():
            self.constants[name] = Constant(TensorSpec(name, entry.dtype, tuple(entry.shape)), not entry.is_plain)
            if not entry.is_plain:
                self.coded[name] = CodedTensor(entry)
                if base_only and len(entry.planes) == 2:
                    self.coded[name].base_only = True
        self.mapping: Mapping | None = None
        #: streamed piece -> ((offset in the file, bytes, CRC32C) of each plane), known once loaded
        self.ranges: dict[Piece, tuple[tuple[int, int, int], ...]] = {}
        self._rows: dict[Piece, CodedRows] = {}
        self._decoded: dict[str, CodedRows] = {}
        self._lay_out()

    def _lay_out(self) -> None:
        self.offsets: dict[str, int] = {}
        self._piece_offsets: dict[Piece, tuple[int, ...]] = {}
        total = temporary = 0
        for name, entry in self.entries.items():
            pieces = self.residency.pieces_of(name)
            if name in self.residency.decoded or pieces:
                self._attach_tables(name)
            if name in self.residency.decoded:
                self.offsets[name] = total
                self._decoded[name] = CodedRows(self.coded[name])
                total += align(self.coded[name].decoded_bytes)
                temporary = max(temporary, entry.extent.length + OVERREAD)
            elif pieces:
                temporary = max(temporary, GROUP)
                for piece in pieces:
                    rows = self._rows[piece] = CodedRows(self.coded[name], piece.group, piece.first, piece.blocks)
                    if not piece.streamed:
                        offsets = []
                        for _, size in rows.spans():
                            offsets.append(total)
                            total += align(size + OVERREAD)
                        self._piece_offsets[piece] = tuple(offsets)
            else:
                self.offsets[name] = total
                total += align(entry.extent.length + OVERREAD)
        self.nbytes = total
        self.loading_bytes = temporary
        self.owned_bytes = sum(t.owned_bytes for t in self.coded.values()) + sum(t.nbytes for t in self._tables.values())

    def _attach_tables(self, name: str) -> None:
        """Read all parts of a tensor but its planes, and attach them."""
        if name in self._tables:
            return
        entry = self.entries[name]
        places, total = {}, 0
        for part, (_, size) in entry.parts.items():
            if not part.startswith("plane"):
                places[part] = total
                total += align(size)
        tables = np.zeros(total + 64, np.uint8)
        tables = tables[-tables.ctypes.data % 64 :][:total]
        wanted = {part: entry.parts[part] for part in places}
        for first, content in self._groups(entry, wanted.values()):
            for part, (begin, size) in wanted.items():
                low, high = max(begin, first), min(begin + size, first + len(content))
                if low < high:
                    at = places[part] + low - begin
                    tables[at : at + high - low] = content[low - first : high - first]
        self.coded[name].attach(tables, places)
        self._tables[name] = tables

    def _groups(self, entry: Entry, wanted: Any = None) -> Iterator[tuple[int, np.ndarray]]:
        """(first byte in the extent, checked bytes) of each 256 KiB that holds a part of ``wanted`` (offset, size), or of all."""
        room = np.empty(min(GROUP, entry.extent.length), np.uint8)
        ranges = None if wanted is None else list(wanted)
        for number, crc in enumerate(entry.crcs):
            first = number * GROUP
            count = min(GROUP, entry.extent.length - first)
            if ranges is not None and not any(begin < first + count and begin + size > first for begin, size in ranges):
                continue
            problem = read_extent(self.fileno(), entry.extent.offset + first, count, room.ctypes.data, [crc])
            if problem:
                raise ContainerError(f"{self.path}: tensor {entry.name!r}: {problem}")
            yield first, room[:count]

    def fileno(self) -> int:
        """The open file, at least as long as this store."""
        return self._source.reader.fileno()

    @property
    def loaded(self) -> bool:
        return self.mapping is not None

    def load(self) -> None:
        """Read every tensor. Raises ContainerError where bytes are missing or damaged, OSError where the file cannot be read."""
        if self.mapping is not None:  # set last: a run does not wait for another session's plan
            return
        with self.lock:
            if self.mapping is not None:
                return
            mapping = Mapping(self.nbytes)
            for name, entry in self.entries.items():
                if name in self._decoded:
                    self._decode(name, mapping)
                elif self.residency.pieces_of(name):
                    self._load_pieces(name, mapping)
                else:
                    at = mapping.address + self.offsets[name]
                    problem = read_extent(self.fileno(), entry.extent.offset, entry.extent.length, at, list(entry.crcs))
                    if problem:
                        raise ContainerError(f"{self.path}: tensor {name!r}: {problem}")
            for name, tensor in self.coded.items():
                if name not in self._decoded and not self.residency.pieces_of(name):
                    tensor.attach(mapping.buffer(self.offsets[name], self.entries[name].extent.length + OVERREAD))
                    self._tables.pop(name, None)  # what planning looked at
            self.mapping = mapping

    def _decode(self, name: str, mapping: Mapping) -> None:
        entry = self.entries[name]
        tensor = CodedTensor(entry)
        tensor.base_only = self.coded[name].base_only
        room = Mapping(entry.extent.length + OVERREAD)  # on a slot of its own, so that its pages are surely given back
        problem = read_extent(self.fileno(), entry.extent.offset, entry.extent.length, room.address, list(entry.crcs))
        if problem:
            raise ContainerError(f"{self.path}: tensor {name!r}: {problem}")
        tensor.attach(room.buffer(0, entry.extent.length + OVERREAD))
        at = mapping.address + self.offsets[name]
        tensor.decode_to(at, available_kernels()[0])
        self._decoded[name].place_decoded(at)
        del tensor
        room.close()

    def _load_pieces(self, name: str, mapping: Mapping) -> None:
        """Copy the rows that stay, and take the checksums of those that will be streamed."""
        entry = self.entries[name]
        spans: list[tuple[int, int, Piece, int]] = []  # first byte in the extent, bytes, piece, plane
        for piece in self.residency.pieces_of(name):
            for plane, (begin, size) in enumerate(self._rows[piece].spans()):
                spans.append((entry.parts[f"plane{plane}"][0] + begin, size, piece, plane))
        crcs = dict.fromkeys(((piece, plane) for _, _, piece, plane in spans), 0)
        for first, content in self._groups(entry):
            end = first + len(content)
            for begin, size, piece, plane in spans:
                low, high = max(begin, first), min(begin + size, end)
                if low >= high:
                    continue
                part = content[low - first : high - first]
                if piece.streamed:
                    crcs[piece, plane] = crc32c(part, crcs[piece, plane])
                else:
                    at = self._piece_offsets[piece][plane] + low - begin
                    mapping.buffer(at, high - low)[...] = part
        for piece in self.residency.pieces_of(name):
            if piece.streamed:
                self.ranges[piece] = tuple(
                    (entry.extent.offset + begin, size, crcs[piece, plane]) for begin, size, p, plane in spans if p is piece
                )
            else:
                self._rows[piece].place(*(mapping.address + at for at in self._piece_offsets[piece]))

    def whole(self, name: str) -> CodedTensor:
        """A coded tensor with all its bytes, read again where they are not all in memory."""
        if self.mapping is not None and name in self.offsets and name not in self._decoded:
            return self.coded[name]
        return self._source.reader.coded(name)

    def weights_of(self, name: str) -> CodedTensor | CodedRows:
        """What steps multiply with where a tensor is in one piece."""
        return self._decoded.get(name) or self.coded[name]

    def rows_of(self, piece: Piece) -> CodedRows:
        """What steps multiply with where a tensor is in pieces. Streamed ones are the caller's own, who places them before each use."""
        if piece.streamed:
            return CodedRows(self.coded[piece.tensor], piece.group, piece.first, piece.blocks)
        return self._rows[piece]

    def forget_tables(self) -> None:
        """Let go of what :meth:`measure` read for planning."""
        if self.mapping is None and self.residency == COMPRESSED:
            for name in self._tables:
                self.coded[name].detach()
            self._tables.clear()

    def measure(self, name: str) -> tuple[int, list[list[int]]]:
        """(groups, bytes of each row block of a group with all its planes, for every group) of a coded tensor; reads its tables."""
        tensor = self.coded[name]
        if not tensor.attached:
            self._attach_tables(name)
        blocks = tensor.tiles[0] // tensor.groups
        return tensor.groups, [
            [sum(size for _, size in CodedRows(tensor, group, block, 1).spans()) for block in range(blocks)]
            for group in range(tensor.groups)
        ]

    def plain(self, name: str) -> np.ndarray:
        """Value of a tensor that is not coded. Reads the file if the store is not loaded yet."""
        entry = self.entries[name]
        if self.mapping is not None:
            return self.mapping.view(self.offsets[name], tuple(entry.shape), entry.dtype)
        return self._source.reader.plain(name)

    @property
    def fp32_bytes(self) -> int:
        """Bytes that all floating point tensors take as fp32."""
        return sum(4 * e.weights for e in self.entries.values() if e.dtype == "float32")


_open: weakref.WeakValueDictionary[tuple, WeightStore] = weakref.WeakValueDictionary()
_open_lock = threading.Lock()


def open_store(path: str, base_only: bool = False) -> WeightStore:
    """The store of a container with all its tensors compressed; sessions of the same unchanged file get the same one."""
    path = os.fspath(path)
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise ContainerError(f"{path}: no such file") from None
    except OSError as error:
        raise ContainerError(f"{path}: cannot be read: {error.strerror}") from None
    key = (os.path.realpath(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, base_only)
    with _open_lock:
        store = _open.get(key)
        if store is None:
            store = WeightStore(path, base_only)
            _open[key] = _open[id(store._source), base_only, COMPRESSED] = store
        return store


def resident(store: WeightStore, residency: Residency) -> WeightStore:
    """The store of the same open container with another residency; sessions that want the same one share it."""
    if residency == store.residency:
        return store
    with _open_lock:
        key = (id(store._source), store.base_only, residency)
        found = _open.get(key)
        if found is None or found._source is not store._source:
            found = WeightStore(store.path, store.base_only, residency, store)
            _open[key] = found
        return found
