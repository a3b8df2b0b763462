"""ONNX files without swallowing them: the structure as ``onnx`` parses it, the weights as views into the file.

An ONNX file is one protobuf message in which every weight's bytes sit inside nested messages; parsing it whole takes the file's size in
memory, twice. Here the file is mapped, the outer two layers of the message are walked by hand (fields are ``key, value`` with
key = field number * 8 + wire type), large ``raw_data`` is left where it is and the rest, small, goes to the ``onnx`` package.
"""

from __future__ import annotations

import lzma
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DependencyError, ModelFormatError

# field numbers of onnx.proto
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# raw_data of at least this many bytes stays in the file
_LARGE = 1024

_XZ = b"\xfd7zXZ\x00"


def onnx_package() -> Any:
    """The ``onnx`` package. Raises DependencyError where it is missing."""
    try:
        import onnx
    except ImportError:
        raise DependencyError("reading ONNX needs the package onnx: pip install 'edgeinfer[convert]'") from None
    return onnx


def open_bytes(path: Path) -> memoryview:
    """The bytes of a file, mapped; those of an ``.xz`` file, decompressed."""
    try:
        with open(path, "rb") as file:
            if file.read(len(_XZ)) == _XZ:
                file.seek(0)
                return memoryview(lzma.open(file).read())
            if file.seek(0, 2) == 0:
                raise ModelFormatError(f"{path}: expected an ONNX file, found an empty one")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (lzma.LZMAError, EOFError) as error:
        raise ModelFormatError(f"{path}: damaged xz file: {error}") from None
    except OSError as error:
        raise ModelFormatError(f"{path}: cannot be read: {error.strerror or error}") from None


def fields(data: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """``(number, begin of field, begin of content, end)`` of every field of the message in ``data[start:end]``.

    Raises ValueError where the bytes are no message.
    """
    at = start
    while at < end:
        begin = at
        key, at = _varint(data, at, end)
        kind = key & 7
        if kind == _VARINT:
            content = at
            _, at = _varint(data, at, end)
        elif kind == _BYTES:
            length, at = _varint(data, at, end)
            content = at
            at += length
        elif kind in (_FIXED64, _FIXED32):
            content = at
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {begin}")
        if at > end or key >> 3 == 0:
            raise ValueError(f"field {key >> 3} at byte {begin} does not fit")
        yield key >> 3, begin, content, at


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"number at byte {at} does not end")


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _message(number: int, parts: list[bytes | memoryview]) -> list[bytes | memoryview]:
    return [_number(number << 3 | _BYTES) + _number(sum(len(p) for p in parts)), *parts]


def load(path: Path) -> tuple[Any, dict[str, memoryview]]:
    """A ``ModelProto`` without its large weights, and these: initializer name -> bytes, not copied.

    Raises ModelFormatError where the file is not ONNX.
    """
    onnx = onnx_package()
    data = open_bytes(path)
    stripped: list[bytes | memoryview] = []
    large: list[memoryview | None] = []
    try:
        for number, begin, content, end in fields(data, 0, len(data)):
            if number == _MODEL_GRAPH:
                graph: list[bytes | memoryview] = []
                for inner, inner_begin, inner_content, inner_end in fields(data, content, end):
                    if inner == _GRAPH_INITIALIZER:
                        tensor, raw = _without_raw_data(data, inner_content, inner_end)
                        graph += _message(_GRAPH_INITIALIZER, tensor)
                        large.append(raw)
                    else:
                        graph.append(data[inner_begin:inner_end])
                stripped += _message(_MODEL_GRAPH, graph)
            else:
                stripped.append(data[begin:end])
        model = onnx.ModelProto.FromString(b"".join(stripped))
    except Exception as error:  # protobuf's DecodeError is of another class in each of its implementations
        raise ModelFormatError(f"{path}: expected an ONNX file, found something else ({error})") from None
    if not model.HasField("graph") or not model.opset_import:
        raise ModelFormatError(f"{path}: expected an ONNX model with a graph and an opset, found none")
    names = [t.name for t in model.graph.initializer]
    return model, {name: raw for name, raw in zip(names, large, strict=True) if raw is not None}


def _without_raw_data(data: memoryview, start: int, end: int) -> tuple[list[bytes | memoryview], memoryview | None]:
    parts: list[bytes | memoryview] = []
    raw = None
    for number, begin, content, stop in fields(data, start, end):
        if number == _TENSOR_RAW_DATA and stop - content >= _LARGE:
            raw = data[content:stop]
        else:
            parts.append(data[begin:stop])
    return parts, raw


def view(raw: memoryview, dtype: np.dtype, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Little-endian bytes as an array, not copied."""
    expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if len(raw) != expected:
        raise ModelFormatError(f"tensor {name!r}: expected {expected} bytes for {dtype.name} {list(shape)}, found {len(raw)}")
    return np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape)
