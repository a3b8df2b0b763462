"""What ``run`` and ``bench`` report alike: latency, memory, faults, with the keys that ``--json`` promises."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime import board
from ..runtime.ceiling import split_footprint
from ..sizes import format_seconds, format_size

if TYPE_CHECKING:
    from ..runtime.session import InferenceSession


def timed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def forget_peak() -> bool:
    """Let ``VmHWM`` begin anew at the present footprint (proc(5), clear_refs). False where the kernel does not do that."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        return True
    except OSError:
        return False


def faults() -> tuple[int, int]:
    """Page faults of this process so far: (major, which waited for storage; minor)."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_majflt, usage.ru_minflt


class Surroundings:
    """What the board does while something is measured: temperature, throttling, clock, energy. ``root`` stands for ``/``.

    ``sample`` between turns keeps extremes; ``begin`` and ``end`` around each measured turn add up energy, so that pauses and the turns of
    a peer do not count.
    """

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._temperatures: list[float] = []
        self._clocks: list[float] = []
        self._slow: list[str] = []
        self._joules = 0.0
        self._seconds = 0.0
        self._source: str | None = None
        self._counter: float | None = None
        self._watts: float | None = None
        self._began = 0.0
        self._watched = True  # until a sensor fails in the middle: half a sum is no sum
        self.sample()

    def sample(self) -> None:
        """Read what changes slowly."""
        celsius, clock, throttling = board.temperature(self._root), board.clock(self._root), board.throttling(self._root)
        if celsius is not None:
            self._temperatures.append(celsius)
        if clock is not None:
            self._clocks.append(clock[0])
        if throttling is not None:
            self._slow += [name for name in throttling.now if name not in self._slow]

    def begin(self) -> None:
        """A measured turn begins."""
        if self._watched:
            self._counter = board.energy(self._root)
            self._watts = board.power(self._root) if self._counter is None else None
        self._began = time.perf_counter()

    def end(self) -> None:
        """It ends: what its counter counted, or the mean of the power before and after times its length."""
        spent = time.perf_counter() - self._began
        if self._watched:
            now = board.energy(self._root) if self._counter is not None else None
            watts = board.power(self._root) if self._watts is not None else None
            if self._counter is not None and now is not None:
                if now >= self._counter:  # else it wrapped in between; that turn is left out
                    self._joules += now - self._counter
                    self._seconds += spent
                self._source = "counter"
            elif self._watts is not None and watts is not None:
                self._joules += spent * (self._watts + watts) / 2
                self._seconds += spent
                self._source = "power sensor"
            else:
                self._watched = False
        self.sample()

    def document(self, samples_per_s: float) -> dict[str, Any]:
        """JSON values; ``None`` where the board tells nothing. ``samples_per_s`` turns watts into joules per sample."""
        throttling, clock = board.throttling(self._root), board.clock(self._root)
        watts = self._joules / self._seconds if self._watched and self._seconds else None
        return {
            "board": {
                "name": board.model_name(self._root),
                "memory_bytes": board.memory(self._root).get("total"),
                "governor": board.governor(self._root),
            },
            "temperature_celsius": {"before": self._temperatures[0], "after": self._temperatures[-1], "most": max(self._temperatures)}
            if self._temperatures
            else None,
            "clock_mhz": {"least": min(self._clocks), "most": max(self._clocks), "nominal": clock[1]} if self._clocks and clock else None,
            "throttling": None if throttling is None else {"during": self._slow, "since_boot": list(throttling.since_boot)},
            "energy": None
            if watts is None
            else {"watts": watts, "joules_per_sample": watts / samples_per_s, "joules": self._joules, "source": self._source},
        }


def surroundings_lines(measured: dict[str, Any]) -> list[str]:
    """:meth:`Surroundings.document` for people: only what the board reports."""
    lines = []
    heat, clock, slow, energy = (measured[key] for key in ("temperature_celsius", "clock_mhz", "throttling", "energy"))
    words = []
    if heat is not None:
        words.append(f"{heat['before']:.0f} to {heat['after']:.0f} degrees Celsius, {heat['most']:.0f} at most")
    if clock is not None:
        words.append(f"clock {clock['least']:.0f} to {clock['most']:.0f} of {clock['nominal']:.0f} MHz")
    if slow is not None:
        words.append(f"slowed down by {', '.join(slow['during'])}" if slow["during"] else "not slowed down")
    if words:
        lines.append("board     " + "; ".join(words))
    if energy is not None:
        lines.append(f"energy    {energy['joules_per_sample'] * 1e3:.2f} mJ per sample at {energy['watts']:.2f} W ({energy['source']})")
    return lines


def latency_ms(seconds: Sequence[float], first: float) -> dict[str, float]:
    """Least, median, 90th and 99th percentile, and the first run (which touches everything for the first time), in milliseconds."""
    p50, p90, p99 = np.percentile(np.asarray(seconds) * 1e3, [50, 90, 99])
    return {"min": min(seconds) * 1e3, "p50": float(p50), "p90": float(p90), "p99": float(p99), "first": first * 1e3}


def document(
    session: InferenceSession,
    model: str,
    batch: int,
    load: float,
    first: float,
    seconds: Sequence[float],
    faulted: tuple[int, int],
    compute: float | None,
) -> dict[str, Any]:
    """The keys that ``run --json`` and ``bench --json`` share.

    ``batch``: samples per run; ``load``: seconds from the file to a session ready to run; ``faulted``: major and minor faults of the runs;
    ``compute``: seconds inside the steps of one profiled run, decoding included, since it happens inside the multiplication.
    """
    report = session.memory_report()
    anonymous, file = split_footprint()
    decode = session.time_decode()  # after the peak was read: decoding alone takes memory that running does not
    return {
        "model": model,
        "threads": session.threads,
        "batch": batch,
        "runs": len(seconds),
        "kernels": session.kernels,
        "latency_ms": latency_ms(seconds, first),
        "throughput_per_s": batch * len(seconds) / sum(seconds),
        "load_ms": load * 1e3,
        "decode_ms": decode * 1e3,
        "compute_ms": None if compute is None else compute * 1e3,
        "rss_bytes": {
            "baseline": report["baseline_rss"],
            "peak": report["peak_rss"],
            "predicted_peak": report["predicted_peak_rss"],
            "ceiling": report["memory_limit"],
            "anonymous": anonymous,
            "file": file,
        },
        "model_bytes": {"fp32": session.store.fp32_bytes, "compressed": sum(e.nbytes for e in session.store.entries.values())},
        "faults": {"major": faulted[0], "minor": faulted[1]},
    }


def memory_lines(measured: dict[str, Any]) -> list[str]:
    """Memory of a :func:`document` for people."""
    rss, model = measured["rss_bytes"], measured["model_bytes"]
    ceiling = f", ceiling {format_size(rss['ceiling'])}" if rss["ceiling"] else ""
    ratio = f" ({model['fp32'] / model['compressed']:.1f} times smaller)" if model["compressed"] else ""
    return [
        f"memory    peak {format_size(rss['peak'])}, predicted {format_size(rss['predicted_peak'])}{ceiling}; "
        f"{format_size(rss['baseline'])} before the model was opened",
        f"weights   {format_size(model['compressed'])} in memory, {format_size(model['fp32'])} as fp32{ratio}",
    ]


def latency_line(latency: dict[str, float]) -> str:
    """A latency dictionary for people."""
    names = {"min": "least", "p50": "median", "p90": "90 %", "p99": "99 %", "first": "first run"}
    return ", ".join(f"{name} {format_seconds(latency[key] / 1e3)}" for key, name in names.items())


def profile_table(session: InferenceSession) -> tuple[list[dict[str, Any]], str]:
    """Layers of the last profiled run: for JSON, and as a table of the slowest ones."""
    from .output import table

    layers: list[dict[str, Any]] = [{"name": name, "op": op, "ms": seconds * 1e3} for name, op, seconds in session.profile()]
    total = sum(layer["ms"] for layer in layers) or 1.0
    slowest = sorted(layers, key=lambda layer: -layer["ms"])[:20]
    rows = [[layer["name"], layer["op"], f"{layer['ms']:.3f}", f"{layer['ms'] / total:.1%}"] for layer in slowest]
    text = table(["layer", "operator", "ms", "share"], rows, left=2)
    if len(layers) > len(slowest):
        text += f"\n... and {len(layers) - len(slowest)} more (--json lists all)"
    return layers, text
