"""How long steps take on this machine: rates that the planner multiplies. `edgeinfer tune profile` will measure them on the device.

The figures are what one thread reached per kernel variant on the machines named beside them; they are only used to print expected
times, never to
decide whether a plan fits.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ops import Step
from .weights import WeightStore


@dataclass(frozen=True)
class Rates:
    """Per thread: multiply-adds per second, decoded weights per second by coder, bytes per second of everything else."""

    macs: float
    decode: dict[str, float]
    bytes: float


_DECODE = {"raw": 4e9, "packed": 5e9, "huffman": 0.8e9, "rans": 0.5e9, "gaps": 1e9}
#: AVX2: Zen 3 at 3.5 GHz; AVX-512: Zen 5; NEON: cycles of docs/benchmarks.md at 1.8 GHz (Cortex-A72), an estimate
RATES = {
    "plain": Rates(6e9, {k: v / 8 for k, v in _DECODE.items()}, 3e9),
    "avx2": Rates(40e9, _DECODE, 8e9),
    "avx512": Rates(100e9, {k: v * 2 for k, v in _DECODE.items()}, 12e9),
    "neon": Rates(5e9, {k: v / 6 for k, v in _DECODE.items()}, 2e9),
    "neon_dotprod": Rates(15e9, {k: v / 3 for k, v in _DECODE.items()}, 5e9),
}


def seconds(step: Step, store: WeightStore, kernels: str, threads: int) -> float:
    """Expected seconds of one step."""
    rates = RATES.get(kernels, RATES["plain"])
    i = step.ints
    total = 0.0
    if step.weights is not None:
        entry = store.entries[step.weights]
        if step.kind != "gather_rows":
            total += entry.rows * entry.k / rates.decode.get(entry.coder, 1e9)
        pixels = i.get("images", 1) * i.get("out_h", 1) * i.get("out_w", 1)
        if step.kind in ("gru", "lstm"):
            pixels = i["steps"] * i["batch"]
        total += pixels * entry.rows * entry.k / rates.macs
    elif step.kind == "matmul":
        total += i["b0"] * i["b1"] * i["m"] * i["n"] * i["k"] / rates.macs
    else:
        fields = ("rows", "cols", "images", "out_h", "out_w", "channels", "outer", "length", "inner", "count", "kh", "kw")
        extents = [i[k] for k in fields if k in i]
        extents += [i[f"d{n}"] for n in range(6) if f"d{n}" in i]
        elements = 1
        for extent in extents:
            elements *= max(extent, 1)
        total += 8 * elements / rates.bytes
    return total / min(threads, 4)
