"""Sizes and times as users write them: ``64MiB``, ``64MB``, ``67108864``; ``100ms``, ``2s``. One parser and one printer for each."""

from __future__ import annotations

import math
import re

from .errors import UsageError

_SIZE_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _SIZE_UNITS[_letter] = 1024**_power
    _SIZE_UNITS[_letter + "ib"] = 1024**_power
    _SIZE_UNITS[_letter + "b"] = 1000**_power

_TIME_UNITS = {"": 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}

_NUMBER = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]*)\s*", re.ASCII)


def parse_size(value: str | int) -> int:
    """A number of bytes. ``MiB`` (and a bare ``M``) is 1024**2, ``MB`` is 1000**2; a number without a unit is bytes.

    Raises UsageError for anything else, for zero, and for negative numbers.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise UsageError(f"a size must be a number of bytes or text like '64MiB', not {value!r}")
    nbytes = int(value) if isinstance(value, int) else _parse(value, _SIZE_UNITS)
    if nbytes is None:
        raise UsageError(f"{value!r} is not a size; write it as 64MiB, 64MB or 67108864 (bytes)")
    if nbytes < 1:
        raise UsageError(f"a size must be at least one byte, not {value!r}")
    return int(nbytes)


def parse_seconds(value: str | int | float) -> float:
    """A time in seconds: ``100ms``, ``2s``, ``5min``; a number without a unit is seconds. Raises UsageError for anything else."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise UsageError(f"a time must be a number of seconds or text like '100ms', not {value!r}")
    seconds = _parse(value, _TIME_UNITS) if isinstance(value, str) else float(value)
    if seconds is None or not math.isfinite(seconds):
        raise UsageError(f"{value!r} is not a time; write it as 100ms, 2s or 5min")
    if seconds < 0:
        raise UsageError(f"a time cannot be negative: {value!r}")
    return seconds


def _parse(text: str, units: dict[str, float] | dict[str, int]) -> float | None:
    match = _NUMBER.fullmatch(text)
    if match is None or match[2].lower() not in units:
        return None
    number = float(match[1]) if "." in match[1] else int(match[1])
    return number * units[match[2].lower()]


def format_size(nbytes: int | float) -> str:
    """Bytes for people, in binary units with three significant digits: ``61.3 MiB``."""
    size = float(nbytes)
    units = ["GiB", "MiB", "KiB", "B"]
    while abs(size) >= 1024 and len(units) > 1:
        size /= 1024
        units.pop()
    return f"{size:.0f} B" if units[-1] == "B" else f"{_three_digits(size)} {units[-1]}"


def format_seconds(seconds: float) -> str:
    """A duration for people: ``834 us``, ``12.3 ms``, ``2.50 s``."""
    if seconds < 1e-3:
        return f"{_three_digits(seconds * 1e6)} us"
    if seconds < 1:
        return f"{_three_digits(seconds * 1e3)} ms"
    return f"{_three_digits(seconds)} s"


def _three_digits(number: float) -> str:
    return f"{number:.{max(0, 3 - len(str(int(abs(number)))))}f}"
