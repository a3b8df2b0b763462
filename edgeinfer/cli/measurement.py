"""What ``run`` and ``bench`` report alike: latency, memory, faults, with the keys that ``--json`` promises."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime.ceiling import split_footprint
from ..sizes import format_seconds, format_size

if TYPE_CHECKING:
    from ..runtime.session import InferenceSession


def timed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def faults() -> tuple[int, int]:
    """Page faults of this process so far: (major, which waited for storage; minor)."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_majflt, usage.ru_minflt


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
