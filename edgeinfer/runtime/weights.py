"""Where the weights of a container live while it runs: one mapping of compressed bytes, shared by its sessions.

The store decides residency; today every tensor is resident in compressed form and nothing else is, so nothing is held twice. Reading is
done by ``kernels.loader`` straight into the mapping, each group of bytes checked against its CRC32C as it arrives.
"""

from __future__ import annotations

import os
import threading
import weakref

import numpy as np

from ..container import Entry, Reader
from ..errors import ContainerError
from ..graph import TensorSpec
from ..kernels.codec import CodedTensor
from ..kernels.loader import read_extent
from .arena import Mapping
from .layout import align
from .lowering import Constant

#: bytes readable behind every tensor: decoders load whole vectors (EI_OVERREAD in weights.h)
OVERREAD = 64


class WeightStore:
    """The weights of one container.

    Args:
        path: an ``.edge`` file.
        base_only: use the sign planes of ``sign``-quantised tensors alone.

    Attributes:
        digest: SHA-256 of the container, as hexadecimal digits.
        nbytes: resident bytes that loading takes: the compressed tensors; ``owned_bytes``: decode tables built beside them.
    """

    def __init__(self, path: str, base_only: bool = False) -> None:
        self.path = path
        self.base_only = base_only
        self._lock = threading.Lock()
        with Reader(path) as reader:
            self.graph = reader.graph
            self.metadata = reader.metadata
            self.digest = reader.digest.hex()
            self.entries: dict[str, Entry] = dict(reader.entries)
        self.constants: dict[str, Constant] = {}
        self.coded: dict[str, CodedTensor] = {}
        self.offsets: dict[str, int] = {}
        total = 0
        for name, entry in self.entries.items():
            self.constants[name] = Constant(TensorSpec(name, entry.dtype, tuple(entry.shape)), not entry.is_plain)
            self.offsets[name] = total
            total += align(entry.extent.length + OVERREAD)
            if not entry.is_plain:
                self.coded[name] = CodedTensor(entry)
                if base_only and len(entry.planes) == 2:
                    self.coded[name].base_only = True
        self.nbytes = total
        self.owned_bytes = sum(t.owned_bytes for t in self.coded.values())
        self.mapping: Mapping | None = None

    @property
    def loaded(self) -> bool:
        return self.mapping is not None

    def load(self) -> None:
        """Read every tensor. Raises ContainerError where bytes are missing or damaged, OSError where the file cannot be read."""
        with self._lock:
            if self.mapping is not None:
                return
            mapping = Mapping(self.nbytes)
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                for name, entry in self.entries.items():
                    at = mapping.address + self.offsets[name]
                    problem = read_extent(file, entry.extent.offset, entry.extent.length, at, list(entry.crcs))
                    if problem:
                        raise ContainerError(f"{self.path}: tensor {name!r}: {problem}")
            finally:
                os.close(file)
            for name, tensor in self.coded.items():
                tensor.attach(mapping.buffer(self.offsets[name], self.entries[name].extent.length + OVERREAD))
            self.mapping = mapping

    def plain(self, name: str) -> np.ndarray:
        """Value of a tensor that is not coded. Reads the file if the store is not loaded yet."""
        entry = self.entries[name]
        if self.mapping is not None:
            return self.mapping.view(self.offsets[name], tuple(entry.shape), entry.dtype)
        with Reader(self.path) as reader:
            return reader.plain(name)

    @property
    def fp32_bytes(self) -> int:
        """Bytes that all floating point tensors take as fp32."""
        return sum(4 * e.weights for e in self.entries.values() if e.dtype == "float32")


_open: weakref.WeakValueDictionary[tuple, WeightStore] = weakref.WeakValueDictionary()
_open_lock = threading.Lock()


def open_store(path: str, base_only: bool = False) -> WeightStore:
    """The store of a container; sessions of the same unchanged file get the same one."""
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
            _open[key] = store
        return store
