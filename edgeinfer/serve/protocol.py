"""Open Inference Protocol V2: requests into tensors, results into replies. Only this module knows the protocol.

Requests are JSON, or JSON followed by raw little-endian tensors (the binary tensor extension: ``Inference-Header-Content-Length`` says
where the JSON ends). Sources: kserve/open-inference-protocol ``inference_rest.md``; Triton ``extension_binary_data.md``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..errors import EdgeInferError, InputError
from ..graph import TensorSpec
from ..sizes import parse_seconds
from .jsontext import Numbers, floats, loads

#: protocol name <-> NumPy name
DATATYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
NAMES = {numpy: name for name, numpy in DATATYPES.items()}

EXTENSIONS = ("binary_tensor_data", "model_repository", "statistics")
MODEL_VERSION = "1"
#: most axes of a tensor, most inputs or outputs named in a request
MOST_AXES = 16
#: bytes of JSON text that a number of a request may take on average; ``%.17g`` takes at most 24 and a comma
JSON_BYTES_PER_VALUE = 26
#: bytes that a request may take beside its tensors
JSON_BYTES_BESIDE = 16 << 10
#: bytes of JSON text that a number of a reply takes at most, by its size in bytes
REPLY_BYTES_PER_VALUE = {1: 6, 2: 12, 4: 17, 8: 26}


class Refusal(EdgeInferError):
    """A request that is answered with an error: HTTP ``status``, and ``retry_after`` seconds where trying again makes sense."""

    def __init__(self, status: int, message: str, retry_after: int | None = None, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.headers = tuple(headers)


@dataclass(frozen=True)
class Reply:
    """An answer: HTTP status, headers without Content-Length, and the parts of the body in order (bytes, or views of arrays).

    ``release`` is called once, when the answer has left or never will.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    parts: tuple[bytes | memoryview, ...] = ()
    release: Callable[[], None] = lambda: None

    @property
    def nbytes(self) -> int:
        return sum(len(part) for part in self.parts)


def json_reply(value: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """A reply whose body is one JSON value."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return Reply(status, (("Content-Type", "application/json"), *headers), (body,))


def error_reply(status: int, message: str, retry_after: int | None = None, headers: Sequence[tuple[str, str]] = ()) -> Reply:
    """An error as the protocol words it: ``{"error": message}``."""
    extra = tuple(headers) + ((("Retry-After", str(retry_after)),) if retry_after is not None else ())
    return json_reply({"error": message}, status, extra)


def refusal_reply(error: Refusal) -> Reply:
    return error_reply(error.status, str(error), error.retry_after, error.headers)


class Source(Protocol):
    """Where the bytes of a request are: in memory or in a spill file."""

    def view(self, first: int, last: int) -> memoryview | None:
        """Bytes ``first .. last`` where they are in memory, else None."""

    def read_into(self, target: memoryview, first: int) -> None:
        """Copy bytes from ``first`` on into ``target``."""


@dataclass(frozen=True)
class Tensor:
    """An input of a request: an array, or ``nbytes`` bytes at ``offset`` of the body, which is not copied before it is run."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    array: np.ndarray | None = None
    source: Source | None = None
    offset: int = 0

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def values(self) -> np.ndarray:
        """The array; without a copy where the bytes are in memory."""
        if self.array is not None:
            return self.array
        assert self.source is not None
        seen = self.source.view(self.offset, self.offset + self.nbytes)
        if seen is None:
            result = np.empty(self.shape, dtype=self.dtype)
            self.source.read_into(_bytes(result), self.offset)
        else:
            result = np.frombuffer(seen, dtype=self.dtype).reshape(self.shape)
        # any byte but 0 is true; NumPy wants it to be 1
        return result.view(np.uint8) != 0 if self.dtype.kind == "b" else result

    def copy_into(self, target: np.ndarray) -> None:
        """Write the values into ``target``, a contiguous array of the same shape and dtype."""
        if self.array is None and self.dtype.kind != "b" and self.source is not None and self.source.view(0, 0) is None:
            self.source.read_into(_bytes(target), self.offset)
        else:
            np.copyto(target, self.values())


@dataclass(frozen=True)
class Request:
    """An inference request that was understood: ``timeout`` in seconds; ``outputs``: (name, as binary) in the order asked for."""

    id: str | None
    inputs: dict[str, Tensor]
    outputs: tuple[tuple[str, bool], ...]
    timeout: float | None = None
    rows: int = 1
    symbols: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives; ``batch``: the free dimension that counts rows, None where there is none."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch: str | None


def metadata(name: str, signature: Signature) -> dict[str, Any]:
    """``GET /v2/models/{name}``; -1 is a free dimension."""

    def describe(spec: TensorSpec) -> dict[str, Any]:
        shape = [extent if isinstance(extent, int) else -1 for extent in spec.shape]
        return {"name": spec.name, "datatype": NAMES.get(spec.dtype, spec.dtype), "shape": shape}

    return {
        "name": name,
        "versions": [MODEL_VERSION],
        "platform": "edgeinfer_edge",
        "inputs": [describe(spec) for spec in signature.inputs],
        "outputs": [describe(spec) for spec in signature.outputs],
    }


def largest_request(signature: Signature, rows: int, symbols: Mapping[str, int]) -> tuple[int, int] | None:
    """Bytes that a (binary, JSON) request of ``rows`` rows takes at most; None where a free dimension has no known size."""
    raw, values = 0, 0
    for spec in signature.inputs:
        count = 1
        for extent in spec.shape:
            if isinstance(extent, str):
                if extent != signature.batch and extent not in symbols:
                    return None
                extent = rows if extent == signature.batch else symbols[extent]
            count *= extent
        raw += count * np.dtype(spec.dtype).itemsize
        values += count
    # a number may be binary in one input and text in another: the larger of both bounds any mixture
    return raw + JSON_BYTES_BESIDE, max(values * JSON_BYTES_PER_VALUE, raw) + JSON_BYTES_BESIDE


def parse_request(
    signature: Signature, source: Source, nbytes: int, header_length: str | None, take: Callable[[int], None] = lambda nbytes: None
) -> Request:
    """The request in a body of ``nbytes`` bytes.

    Args:
        header_length: value of Inference-Header-Content-Length.
        take: called with the bytes of each larger piece of memory before it is taken; may raise Refusal.

    Raises InputError.
    """
    end = nbytes
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit()) or int(header_length[:20]) > nbytes:
            raise InputError(f"Inference-Header-Content-Length: expected a number up to {nbytes}, found {header_length[:20]!r}")
        end = int(header_length[:20])
        if end == 0:
            return _raw_request(signature, source, nbytes)
    document = loads(_read_text(source, end, take))
    if not isinstance(document, dict):
        raise InputError("request: expected a JSON object")
    parameters = _object(document, "parameters")
    identity = document.get("id")
    if identity is not None and not isinstance(identity, str):
        raise InputError(f"id: expected text, found {_kind(identity)}")
    expected = {spec.name: spec for spec in signature.inputs}
    items = _objects(document, "inputs")
    names = [_text(item, "name") for item in items]
    wrong = [name[:80] for name in names if name not in expected]
    absent = [name for name in expected if name not in names]
    if wrong or absent or len(set(names)) != len(names):
        raise InputError(
            f"inputs: expected {', '.join(map(repr, expected))}"
            + (f"; missing {', '.join(map(repr, absent))}" if absent else "")
            + (f"; unknown {', '.join(map(repr, wrong))}" if wrong else "")
            + ("; one comes twice" if len(set(names)) != len(names) else "")
        )
    tensors, at = [], end
    sizes: dict[str, int] = {}
    for name, item in zip(names, items, strict=True):
        tensor, at = _tensor(expected[name], item, sizes, source, at, nbytes, take)
        tensors.append(tensor)
    if at != nbytes:
        raise InputError(f"binary data: expected {at - end} bytes behind the JSON, found {nbytes - end}")
    every = _flag(parameters, "binary_data_output", False)
    known = {spec.name for spec in signature.outputs}
    wanted: list[tuple[str, bool]] = []
    for item in _objects(document, "outputs") if document.get("outputs") is not None else ():
        name = _text(item, "name")
        if name not in known:
            raise InputError(f"output {name[:80]!r}: the model has no such output; it has {', '.join(map(repr, sorted(known)))}")
        if name in dict(wanted):
            raise InputError(f"output {name!r} is asked for twice")
        options = _object(item, "parameters")
        if options.get("classification"):
            raise InputError(f"output {name!r}: parameter 'classification' is not supported")
        wanted.append((name, _flag(options, "binary_data", every)))
    outputs = tuple(wanted) or tuple((spec.name, every) for spec in signature.outputs)
    rows = sizes.pop(signature.batch, 1) if signature.batch is not None else 1
    given = {tensor.name: tensor for tensor in tensors}
    return Request(identity, {name: given[name] for name in expected}, outputs, _timeout(parameters.get("timeout")), rows, sizes)


def _read_text(source: Source, nbytes: int, take: Callable[[int], None]) -> str:
    """The JSON of a request. Text that is not ASCII takes up to four bytes a character."""
    take(nbytes)
    raw = source.view(0, nbytes)
    if raw is None:
        room = bytearray(nbytes)
        source.read_into(memoryview(room), 0)
        raw = memoryview(room)
    try:
        return str(raw, "ascii")
    except UnicodeDecodeError:
        take(4 * nbytes)
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"JSON: not UTF-8 at byte {error.start}") from None


def _raw_request(signature: Signature, source: Source, nbytes: int) -> Request:
    """The raw form: the body is the one input, a batch of one; the reply is binary."""
    if len(signature.inputs) != 1:
        raise InputError(f"a raw request is for models with one input; this one has {len(signature.inputs)}")
    spec = signature.inputs[0]
    shape = [1 if extent == signature.batch else extent for extent in spec.shape]
    free = [axis for axis, extent in enumerate(shape) if isinstance(extent, str)]
    dtype = np.dtype(spec.dtype)
    if len(free) > 1:
        raise InputError("a raw request is for inputs with at most one free dimension beside the batch")
    fixed = math.prod(extent for extent in shape if isinstance(extent, int)) * dtype.itemsize
    if free and nbytes and nbytes % fixed == 0:
        shape[free[0]] = nbytes // fixed
    elif free or nbytes != fixed:
        raise InputError(f"raw request: expected {fixed} bytes{' or a multiple' if free else ''}, found {nbytes}")
    full = tuple(int(extent) for extent in shape)
    sizes = {name: extent for name, extent in zip(spec.shape, full, strict=True) if isinstance(name, str) and name != signature.batch}
    tensor = Tensor(spec.name, dtype, full, source=source, offset=0)
    return Request(None, {spec.name: tensor}, tuple((out.name, True) for out in signature.outputs), None, 1, sizes)


def _tensor(
    spec: TensorSpec, item: dict[str, Any], sizes: dict[str, int], source: Source, at: int, nbytes: int, take: Callable[[int], None]
) -> tuple[Tensor, int]:
    """One input, checked against ``spec`` before room is made for it; ``sizes`` collects free dimensions; ``at``: next binary byte."""
    label = f"input {spec.name!r}"
    datatype, want = _text(item, "datatype"), NAMES.get(spec.dtype, spec.dtype)
    if datatype != want:
        raise InputError(f"{label}: expected datatype {want}, found {datatype[:40]!r}")
    dtype = np.dtype(spec.dtype)
    shape = _shape(item, label)
    wanted = [extent if isinstance(extent, int) else -1 for extent in spec.shape]
    if len(shape) != len(wanted):
        raise InputError(f"{label}: expected shape {wanted}, found {list(shape)}")
    count = 1
    for extent, found in zip(spec.shape, shape, strict=True):
        count *= found
        if isinstance(extent, str):
            if sizes.setdefault(extent, found) != found:
                raise InputError(f"{label}: dimension {extent} is {found}, but {sizes[extent]} in another input")
        elif extent != found:
            raise InputError(f"{label}: expected shape {wanted}, found {list(shape)}")
    options = _object(item, "parameters")
    if "binary_data_size" in options:
        size = options["binary_data_size"]
        if isinstance(size, bool) or not isinstance(size, int) or size != count * dtype.itemsize:
            wanted_size = f"{count * dtype.itemsize} for {datatype} {list(shape)}"
            raise InputError(f"{label}: binary_data_size: expected {wanted_size}, found {str(size)[:40]}")
        if item.get("data") is not None:
            raise InputError(f"{label}: has both data and binary_data_size")
        if size > nbytes - at:
            raise InputError(f"{label}: binary data: expected {size} bytes, found {nbytes - at}")
        return Tensor(spec.name, dtype, shape, source=source, offset=at), at + size
    values = item.get("data")
    if not isinstance(values, Numbers):
        raise InputError(f"{label}: data: expected an array of {datatype}, found {_kind(values)}")
    if count > values.end - values.start:  # each value takes at least a digit: refuse before room is made
        raise InputError(f"{label}: data: expected {count} values for shape {list(shape)}, found fewer")
    take(count * (dtype.itemsize + 2))  # and the brackets and commas of the text
    try:
        return Tensor(spec.name, dtype, shape, array=values.array(dtype, shape)), at
    except InputError as error:
        raise InputError(f"{label}: {error}") from None


def _shape(item: dict[str, Any], label: str) -> tuple[int, ...]:
    found = item.get("shape")
    if not isinstance(found, Numbers):
        raise InputError(f"{label}: shape: expected a list of integers, found {_kind(found)}")
    try:
        shape = found.integers(MOST_AXES)
    except InputError as error:
        raise InputError(f"{label}: shape: {error}") from None
    if any(extent < 1 or extent > 1 << 31 for extent in shape):
        raise InputError(f"{label}: shape: expected extents from 1 to 2**31, found {shape}")
    return tuple(shape)


def infer_reply(model: str, request: Request, results: dict[str, np.ndarray]) -> Reply:
    """The reply to an inference request. Binary outputs are views: nothing is copied."""
    described: list[str] = []
    binary: list[memoryview] = []
    for name, raw in request.outputs:
        array = np.ascontiguousarray(results[name])
        head = f'{{"name":{json.dumps(name)},"datatype":"{NAMES[array.dtype.name]}","shape":{json.dumps(list(array.shape))}'
        if raw:
            binary.append(_bytes(array))
            described.append(f'{head},"parameters":{{"binary_data_size":{array.nbytes}}}}}')
        else:
            described.append(f'{head},"data":[{_values(array)}]}}')
    identity = f'"id":{json.dumps(request.id)},' if request.id is not None else ""
    text = (f'{{"model_name":{json.dumps(model)},"model_version":"{MODEL_VERSION}",{identity}"outputs":[{",".join(described)}]}}').encode()
    if not binary:
        return Reply(200, (("Content-Type", "application/json"),), (text,))
    headers = (("Content-Type", "application/octet-stream"), ("Inference-Header-Content-Length", str(len(text))))
    return Reply(200, headers, (text, *binary))


def reply_bytes(request: Request, shapes: dict[str, tuple[tuple[int, ...], np.dtype]]) -> int:
    """Bytes of memory that the reply takes at most, over the arrays themselves."""
    total = 1024
    for name, raw in request.outputs:
        shape, dtype = shapes[name]
        if not raw:
            total += 2 * REPLY_BYTES_PER_VALUE[dtype.itemsize] * math.prod(shape)
    return total


def _bytes(array: np.ndarray) -> memoryview:
    """The bytes of a contiguous array."""
    return memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]  # buffers are a protocol since Python 3.12


def _values(array: np.ndarray) -> str:
    if array.dtype.kind == "f":
        return floats(array)
    return json.dumps(array.reshape(-1).tolist(), separators=(",", ":"))[1:-1]


def _timeout(value: Any) -> float | None:
    """Seconds; a number counts microseconds, as in Triton; text is a time like ``100ms``."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            return parse_seconds(value)
        except EdgeInferError as error:
            raise InputError(f"timeout: {error}") from None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        raise InputError(f"timeout: expected microseconds (a whole number) or a time like '100ms', found {str(value)[:40]}")
    return value / 1e6 if value else None


def _kind(value: Any) -> str:
    if isinstance(value, Numbers):
        return "an array"
    if value is None:
        return "nothing"
    return {dict: "an object", list: "an array with text or objects", str: "text", bool: "a boolean"}.get(type(value), "a number")


def _object(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{key}: expected an object, found {_kind(value)}")
    return value


def _objects(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = document.get(key)
    if isinstance(value, Numbers) and value.end - value.start == 2:  # []
        value = []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InputError(f"{key}: expected a list of objects, found {_kind(value)}")
    return value


def _text(item: dict[str, Any], key: str) -> str:
    value = item.get(key)
    if not isinstance(value, str):
        raise InputError(f"{key}: expected text, found {_kind(value)}")
    return value


def _flag(options: dict[str, Any], key: str, default: bool) -> bool:
    value = options.get(key, default)
    if not isinstance(value, bool):
        raise InputError(f"{key}: expected true or false, found {_kind(value)}")
    return value
