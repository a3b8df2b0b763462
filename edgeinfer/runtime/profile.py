"""How long steps take on a device, and from that which algorithm each convolution takes.

A step is an amount of work of a few kinds (:data:`TERMS`); a device does so much of each per second. Both are coarse on purpose: the rates
rank algorithms and print expected times, they never decide whether a plan fits. An algorithm depends on the shape of one image, the kernel
variant and the device's rates, never on the batch or the threads, because other algorithms give other bits.

:data:`BUILT_IN` has rates for every kernel variant; ``edgeinfer tune profile`` measures those of a device and writes them to a file, which
``EDGEINFER_PROFILE`` names.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ..errors import UsageError
from ..ops import Step
from ..ops.conv import WINOGRAD, algorithms

#: kinds of work; the unit whose rate per second and thread a profile states
TERMS = {
    "direct": "multiply-adds of products, rows rounded up to whole vectors",
    "packed": "multiply-adds of convolutions of few channels, whose inputs are packed side by side first",
    "depthwise": "multiply-adds of depthwise convolutions",
    "winograd": "multiply-adds between transformed tiles",
    "winograd_input": "floats of transformed inputs",
    "winograd_weights": "floats of transformed weights",
    "winograd_output": "floats of sums to be transformed back",
    "decode_raw": "weights",
    "decode_packed": "weights",
    "decode_huffman": "weights",
    "decode_rans": "weights",
    "decode_gaps": "weights",
    "bytes": "bytes read and written by everything else",
}

#: pixels, or tiles, that one decoding of the weights serves (conv.c, winograd.c)
PIXELS_PER_DECODE = 510
TILES_PER_DECODE = 64
#: convolutions of fewer input channels are packed (conv.c)
FEW_CHANNELS = 16


class Matrix(Protocol):
    """What is asked of coded weights: a container entry has it."""

    @property
    def rows(self) -> int: ...
    @property
    def k(self) -> int: ...
    @property
    def groups(self) -> int: ...
    @property
    def coder(self) -> str: ...


@dataclass(frozen=True)
class Profile:
    """What a device does per second and thread of every term, with one kernel variant; ``source`` says where that was measured."""

    kernels: str
    source: str
    rates: Mapping[str, float]

    def seconds(self, work: Mapping[str, float]) -> float:
        """Expected seconds of ``work`` (:func:`amounts`) on one thread."""
        return sum(amount / self.rates[term] for term, amount in work.items())


def _scaled(kernels: str, source: str, base: Profile, compute: float, decode: float, memory: float) -> Profile:
    factors = {t: decode if t.startswith("decode") else memory if t == "bytes" else compute for t in TERMS}
    return Profile(kernels, source, {t: base.rates[t] * factors[t] for t in TERMS})


_AVX2 = Profile(
    "avx2",
    "Zen 3 at 3.5 GHz (tune profile: 34 layers, median error 4 %)",
    {
        "direct": 43e9,
        "packed": 35e9,
        "depthwise": 14e9,
        "winograd": 42e9,
        "winograd_input": 8.7e9,
        "winograd_weights": 8.6e9,
        "winograd_output": 5.5e9,
        "decode_raw": 9.8e9,
        "decode_packed": 20e9,
        "decode_huffman": 1.8e9,
        "decode_rans": 1.0e9,
        "decode_gaps": 0.97e9,
        "bytes": 30e9,
    },
)
#: rates by kernel variant. Only those of AVX2 come from the project's own kernels on a processor; the others are those scaled by what the
#: arithmetic of their instruction sets allows (throw-away code on Zen 5: 2.0 to 2.3 times AVX2; cycles of a Cortex-A72 model at 1.8 GHz).
BUILT_IN = {
    "avx2": _AVX2,
    "avx512": _scaled("avx512", "estimate from AVX2", _AVX2, 2.2, 2.0, 1.5),
    "plain": _scaled("plain", "estimate from AVX2", _AVX2, 0.14, 0.125, 0.4),
    "neon": _scaled("neon", "estimate for a Cortex-A72", _AVX2, 0.12, 0.17, 0.25),
    "neon_dotprod": _scaled("neon_dotprod", "estimate for a Cortex-A76", _AVX2, 0.35, 0.33, 0.6),
}


@dataclass(frozen=True)
class Choice:
    """The algorithm of one convolution and the expected seconds of every one that could do it, per image and thread."""

    algorithm: str
    seconds: Mapping[str, float]

    @property
    def why(self) -> str:
        """The comparison that decided, for people."""
        return ", ".join(f"{name} {seconds * 1e3:.3f} ms" for name, seconds in sorted(self.seconds.items(), key=lambda item: item[1]))


def _decoding(entry: Matrix, times: float) -> dict[str, float]:
    return {f"decode_{entry.coder}": times * entry.rows * entry.k}


def _convolution(ints: Mapping[str, int], entry: Matrix, algorithm: str) -> dict[str, float]:
    rows = entry.groups * 8 * math.ceil(entry.rows / entry.groups / 8)
    channels = ints["in_c"] // ints["groups"]
    if algorithm in WINOGRAD:
        out, kernel = WINOGRAD[algorithm]
        points = (out + kernel - 1) ** 2
        tiles = ints["images"] * math.ceil(ints["out_h"] / out) * math.ceil(ints["out_w"] / out)
        again = math.ceil(tiles / TILES_PER_DECODE)
        return {
            "winograd": tiles * points * channels * rows,
            "winograd_input": tiles * points * ints["in_c"],
            "winograd_output": tiles * points * rows,
            "winograd_weights": again * points * channels * rows,
            **_decoding(entry, again),
        }
    pixels = ints["images"] * ints["out_h"] * ints["out_w"]
    few = channels < FEW_CHANNELS and ints["kh"] * ints["kw"] > 1
    return {"packed" if few else "direct": pixels * rows * entry.k, **_decoding(entry, math.ceil(pixels / PIXELS_PER_DECODE))}


def amounts(step: Step, entry: Matrix | None, algorithm: str = "direct") -> dict[str, float]:
    """Work of one step by term. ``entry``: its coded weights; ``algorithm``: of a convolution."""
    i = step.ints
    if entry is not None and step.kind != "gather_rows":
        if step.kind == "conv":
            return _convolution(i, entry, algorithm)
        if step.kind == "depthwise":
            return {"depthwise": i["images"] * i["out_h"] * i["out_w"] * entry.rows * entry.k, **_decoding(entry, 1)}
        return {"direct": i["steps"] * i["batch"] * entry.rows * entry.k, **_decoding(entry, 1)}
    if step.kind == "matmul":
        return {"direct": i["b0"] * i["b1"] * i["m"] * i["n"] * i["k"]}
    fields = ("rows", "cols", "images", "out_h", "out_w", "channels", "outer", "length", "inner", "count", "kh", "kw")
    extents = [i[k] for k in fields if k in i] + [i[f"d{n}"] for n in range(6) if f"d{n}" in i]
    return {"bytes": 8 * math.prod(max(extent, 1) for extent in extents)}


def choose(step: Step, entry: Matrix, profile: Profile) -> Choice:
    """The fastest algorithm of a convolution for one image."""
    one = Step(step.kind, step.tensors, {**step.ints, "images": 1})
    seconds = {name: profile.seconds(amounts(one, entry, name)) for name in algorithms(one)}
    return Choice(min(seconds, key=lambda name: seconds[name]), seconds)


def dumps(profiles: Mapping[str, Profile]) -> str:
    """The text of a profile file."""
    document = {"version": 1, "profiles": {p.kernels: {"source": p.source, "rates": dict(p.rates)} for p in profiles.values()}}
    return json.dumps(document, indent=2) + "\n"


def read(path: str | os.PathLike[str]) -> dict[str, Profile]:
    """Profiles by kernel variant from a file that ``edgeinfer tune profile`` wrote. Raises UsageError."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except OSError as error:
        raise UsageError(f"device profile {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"device profile {path}: expected JSON: {error}") from None
    if not isinstance(document, dict) or document.get("version") != 1 or not isinstance(document.get("profiles"), dict):
        raise UsageError(f"device profile {path}: expected version 1 and profiles by variant; write it with 'edgeinfer tune profile'")
    found = {}
    for kernels, body in document["profiles"].items():
        rates = body.get("rates") if isinstance(body, dict) else None
        if kernels not in BUILT_IN or not isinstance(rates, dict) or set(rates) != set(TERMS):
            raise UsageError(f"device profile {path}: {kernels!r}: expected rates of {', '.join(TERMS)}")
        for term, rate in rates.items():
            if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < math.inf:
                raise UsageError(f"device profile {path}: {kernels!r}: rate of {term}: expected a number above 0, found {rate!r}")
        found[kernels] = Profile(kernels, str(body.get("source", path)), {t: float(rates[t]) for t in TERMS})
    return found


def profile_of(kernels: str) -> Profile:
    """The rates to plan with: those of the file that ``EDGEINFER_PROFILE`` names if it has this variant, else the built-in ones."""
    path = os.environ.get("EDGEINFER_PROFILE")
    measured = read(path) if path else {}
    return measured.get(kernels) or BUILT_IN.get(kernels) or BUILT_IN["plain"]
