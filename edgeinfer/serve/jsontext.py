"""JSON of requests, read within bounded memory: arrays of numbers never become Python objects.

``json.loads`` makes up to 25 bytes of objects for each byte of hostile text. Here every array without strings and objects in it stays
text (:class:`Numbers`, two positions) until its dtype and shape are known, and is then converted block by block into a NumPy array
of the size that was admitted. Everything else is bounded in depth and in the number of values.
"""

from __future__ import annotations

import re
from json.decoder import scanstring  # type: ignore[attr-defined]  # the C scanner behind json.loads
from typing import Any

import numpy as np

from ..errors import InputError

#: nesting of objects and lists of objects; the protocol needs five
MOST_DEPTH = 16
#: strings, numbers, keys and containers outside arrays of numbers; a request for one tensor has about a dozen
MOST_VALUES = 4096
#: bytes of text converted at a time: 64 KiB of digits make at most 32 Ki numbers, 256 KiB
BLOCK = 1 << 16

_BLANK = re.compile(r"[ \t\r\n]*")
_BLANKS = frozenset(" \t\r\n")
_SCALAR = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")
_FLAT = re.compile(r"\[[0-9+\-.,eE \t\r\natruflsNIyi]*\]")
_NUMBERS = re.compile(r"[\[\]0-9+\-.,eE \t\r\natruflsNIyi]+")
_NUMBER = rb"[ \t\r\n]*-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?[ \t\r\n]*"
_INTEGER = rb"[ \t\r\n]*-?(?:0|[1-9][0-9]*)[ \t\r\n]*"
_BOOLEAN = rb"[ \t\r\n]*(?:true|false|0|1)[ \t\r\n]*"
_LISTS = {kind: re.compile(rb"(?:%s,)*%s" % (one, one)) for kind, one in (("f", _NUMBER), ("i", _INTEGER), ("b", _BOOLEAN))}
_UNNEST = bytes.maketrans(b"[]", b"  ")
_NOT_STRUCTURE = bytes(set(range(256)) - set(b"[],"))


class Numbers:
    """An array of numbers that is still text: ``text[start:end]``, brackets included."""

    __slots__ = ("text", "start", "end")

    def __init__(self, text: str, start: int, end: int) -> None:
        self.text, self.start, self.end = text, start, end

    def integers(self, most: int) -> list[int]:
        """A flat list of at most ``most`` integers: a shape. Raises InputError."""
        if self.end - self.start > 24 * most:
            raise InputError(f"expected at most {most} integers, found {self.end - self.start} characters")
        raw = self.text[self.start + 1 : self.end - 1].strip()
        if not raw:
            return []
        parts = raw.split(",")
        if len(parts) > most or not all(re.fullmatch(r"\s*-?[0-9]{1,18}\s*", part) for part in parts):
            raise InputError(f"expected a list of at most {most} integers, found [{raw[:60]}]")
        return [int(part) for part in parts]

    def array(self, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """The numbers as an array, row-major, nested as ``shape`` or flat. Raises InputError."""
        count = 1
        for extent in shape:
            count *= extent
        self._check_nesting(shape, count)
        kind = {"f": "f", "b": "b"}.get(dtype.kind, "i")
        # float32 is read as float64 and rounded, like any JSON reader; int64 and uint64 keep all their digits
        wide = {"f": np.dtype(np.float64), "b": np.dtype(np.int64), "i": np.dtype(np.uint64 if dtype.kind == "u" else np.int64)}[kind]
        result = np.empty(count, dtype=dtype)
        done, first = 0, self.start
        while first < self.end:
            last = self.end
            if last - first > BLOCK:
                last = self.text.rfind(",", first, first + BLOCK)
                if last < 0:
                    raise InputError("data: a number is longer than any number needs to be")
            block = self.text[first:last].encode("ascii").translate(_UNNEST)
            first = last + 1
            if not _LISTS[kind].fullmatch(block):
                raise InputError(f"data: expected {_WORDS[kind]}, found {_first_odd(block, kind)!r}")
            if kind == "b":
                block = block.replace(b"true", b"1").replace(b"false", b"0")
            values = _convert(block, wide)
            if kind == "i" and dtype.itemsize < 8:
                limits = np.iinfo(dtype)
                if values.min() < limits.min or values.max() > limits.max:
                    raise InputError(f"data: a value is outside {dtype.name} ({limits.min} to {limits.max})")
            if done + values.size > count:  # cannot be: the commas were counted; an index must not depend on that
                raise InputError(f"data: expected {count} values for shape {list(shape)}, found more")
            with np.errstate(over="ignore"):
                result[done : done + values.size] = values
            done += values.size
        if done != count:
            raise InputError(f"data: expected {count} values for shape {list(shape)}, found {done}")
        return result.reshape(shape)

    def _check_nesting(self, shape: tuple[int, ...], count: int) -> None:
        """Brackets and commas must be those of a flat list or of ``shape``; the numbers between them are looked at later."""
        text, skeleton = self.text, bytearray()
        for first in range(self.start, self.end, BLOCK):
            skeleton += text[first : min(first + BLOCK, self.end)].encode("ascii").translate(None, _NOT_STRUCTURE)
        if len(skeleton) == count + 1 and skeleton.count(b",") == count - 1:  # flat: one pair of brackets
            return
        # count the bytes of the nested form before building it: a wrong shape must not cost memory
        length = 0
        for extent in reversed(shape):
            length = 2 + extent * length + extent - 1
        if len(skeleton) == length:
            nested = b""
            for extent in reversed(shape):
                nested = b"[" + b",".join([nested] * extent) + b"]"
            if skeleton == nested:
                return
        lists = skeleton.count(b"[")
        raise InputError(
            f"data: expected {count} values, flat or nested as shape {list(shape)}, "
            f"found {skeleton.count(b',') + 1} in {lists} list{'s' if lists > 1 else ''}"
        )


_WORDS = {"f": "numbers", "i": "integers", "b": "true and false"}


def _convert(block: bytes, wide: np.dtype) -> np.ndarray:
    try:
        if wide.kind == "f":
            return np.fromstring(block.decode("ascii"), dtype=wide, sep=",")  # type: ignore[arg-type]  # text mode, strtod of the C locale
        return np.array([int(part) for part in block.split(b",")], dtype=wide)
    except (ValueError, OverflowError):
        raise InputError(f"data: a value is outside {wide.name}") from None


def _first_odd(block: bytes, kind: str) -> str:
    one = re.compile({"f": _NUMBER, "i": _INTEGER, "b": _BOOLEAN}[kind])
    for part in block.split(b","):
        if not one.fullmatch(part):
            return part.strip()[:40].decode("ascii", "replace")
    return ""


def loads(text: str, most_values: int = MOST_VALUES) -> Any:
    """The value of one JSON text; arrays without strings and objects come as :class:`Numbers`. Raises InputError."""
    reader = _Reader(text, most_values)
    value = reader.value(reader.skip(0), 0)
    if reader.skip(reader.at) != len(text):
        raise reader.fail("the end", reader.at)
    return value


class _Reader:
    def __init__(self, text: str, most_values: int) -> None:
        self.text = text
        self.at = 0
        self.left = most_values

    def fail(self, expected: str, at: int) -> InputError:
        found = repr(self.text[at : at + 20]) if at < len(self.text) else "the end"
        return InputError(f"JSON: expected {expected} at character {at}, found {found}")

    def skip(self, at: int) -> int:
        if self.text[at : at + 1] not in _BLANKS:
            return at
        match = _BLANK.match(self.text, at)
        assert match is not None
        return match.end()

    def value(self, at: int, depth: int) -> Any:
        """The value that begins at ``at``; ``self.at`` is then behind it."""
        self.left -= 1
        if self.left < 0:
            raise InputError("JSON: too many values outside tensors")
        if depth > MOST_DEPTH:
            raise InputError(f"JSON: nested deeper than {MOST_DEPTH}")
        first = self.text[at : at + 1]
        if first == "{":
            return self.object(at, depth)
        if first == "[":
            return self.list(at, depth)
        if first == '"':
            return self.string(at)
        match = _SCALAR.match(self.text, at)
        if match is None:
            raise self.fail("a value", at)
        self.at = match.end()
        word = match[0]
        if word in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[word]
        if len(word) > 64:
            raise InputError("JSON: a number is longer than any number needs to be")
        return float(word) if any(c in word for c in ".eE") else int(word)

    def string(self, at: int) -> str:
        try:
            value, self.at = scanstring(self.text, at + 1, True)
        except ValueError as error:  # JSONDecodeError
            raise InputError(f"JSON: {error}") from None
        return value

    def object(self, at: int, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        at = self.skip(at + 1)
        if self.text[at : at + 1] == "}":
            self.at = at + 1
            return found
        while True:
            if self.text[at : at + 1] != '"':
                raise self.fail("a key", at)
            key = self.string(at)
            at = self.skip(self.at)
            if self.text[at : at + 1] != ":":
                raise self.fail("':'", at)
            if key in found:
                raise InputError(f"JSON: key {key[:40]!r} comes twice")
            found[key] = self.value(self.skip(at + 1), depth + 1)
            at = self.skip(self.at)
            mark = self.text[at : at + 1]
            if mark == "}":
                self.at = at + 1
                return found
            if mark != ",":
                raise self.fail("',' or '}'", at)
            at = self.skip(at + 1)

    def list(self, at: int, depth: int) -> Any:
        end = self._numbers_end(at)
        if end:
            self.at = end
            return Numbers(self.text, at, end)
        found: list[Any] = []
        at = self.skip(at + 1)
        if self.text[at : at + 1] == "]":
            self.at = at + 1
            return found
        while True:
            found.append(self.value(at, depth + 1))
            at = self.skip(self.at)
            mark = self.text[at : at + 1]
            if mark == "]":
                self.at = at + 1
                return found
            if mark != ",":
                raise self.fail("',' or ']'", at)
            at = self.skip(at + 1)

    def _numbers_end(self, at: int) -> int:
        """Where the array that begins at ``at`` ends if only numbers, words and brackets are in it; else 0."""
        flat = _FLAT.match(self.text, at)
        if flat is not None:
            return flat.end()
        depth, first, block = 0, at, 1 << 10  # small blocks first: many short lists must not each look at all that follows them
        while True:
            run = _NUMBERS.match(self.text, first, first + block)
            if run is None or run.end() == first:
                return 0
            if run.end() < first + block and "]" not in run[0]:
                return 0
            part = np.frombuffer(run[0].encode("ascii"), dtype=np.uint8)
            marks = np.flatnonzero((part == 91) | (part == 93))  # brackets
            levels = depth + np.cumsum(np.where(part[marks] == 91, 1, -1))
            closed = np.flatnonzero(levels == 0)
            if closed.size:
                return first + int(marks[closed[0]]) + 1
            if run.end() < first + block:
                return 0
            if levels.size:
                depth = int(levels[-1])
            first += block
            block = min(2 * block, BLOCK)


def floats(array: np.ndarray) -> str:
    """Numbers of a float array for JSON, in as many digits as bring every bit back; what JSON cannot say (NaN, infinities) is null."""
    form = {2: "%.5g", 4: "%.9g"}.get(array.dtype.itemsize, "%.17g")
    flat = array.reshape(-1)
    text = ",".join([form % value for value in flat.tolist()])
    if not np.isfinite(flat).all():
        text = text.replace("nan", "null").replace("-inf", "null").replace("inf", "null")
    return text
