"""Prints the JSON files of ``edgeinfer bench`` as one Markdown table, with what was measured on. Standard library alone.

python benchmarks/on_device_table.py a.json b.json
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

MIB = 1 << 20


def number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def row(name: str, found: dict[str, Any], peers: list[str]) -> list[str]:
    latency, rss, cold, energy = found["latency_ms"], found["rss_bytes"], found.get("cold_start_ms"), found.get("energy")
    cells = [
        name,
        number(latency["p50"], 2),
        number(latency["p99"], 2),
        number(found["throughput_per_s"]),
        number(found["decode_ms"], 2),
        number(rss["peak"] / MIB),
        number(rss["predicted_peak"] / MIB) if rss["predicted_peak"] else "",
        number(found["model_bytes"]["compressed"] / MIB, 2),
        number(found["model_bytes"]["fp32"] / MIB, 1),
        number(cold["total"], 0) if cold else "",
        number(energy["joules_per_sample"] * 1e3, 1) if energy else "",
    ]
    for peer in peers:
        theirs = found["against"].get(peer)
        cells += [number(theirs["latency_ratio_p50"], 2), number(theirs["rss_ratio"], 2)] if theirs else ["", ""]
    return cells


def main(paths: list[str]) -> int:
    if not paths:
        print(__doc__, file=sys.stderr)
        return 2
    found = {Path(path).stem: json.loads(Path(path).read_text()) for path in paths}
    first = next(iter(found.values()))
    peers = list(dict.fromkeys(peer for each in found.values() for peer in each["against"]))
    board = first["board"]
    memory = f"{board['memory_bytes'] / MIB:.0f} MiB" if board["memory_bytes"] else "unknown"
    heat = [each["temperature_celsius"]["most"] for each in found.values() if each["temperature_celsius"]]
    slowed = sorted({name for each in found.values() if each["throttling"] for name in each["throttling"]["during"]})
    print(f"{board['name'] or platform.machine()}, {memory} of memory, {first['threads']} thread(s), batch {first['batch']},", end=" ")
    print(f"kernels {first['kernels']};", end=" ")
    print(f"{platform.system()} {platform.release()}, Python {platform.python_version()};", end=" ")
    print(f"{max(heat):.0f} degrees Celsius at most," if heat else "temperature not reported,", end=" ")
    reported = any(each["throttling"] for each in found.values())
    print(f"slowed down by {', '.join(slowed)}." if slowed else "not slowed down." if reported else "throttling not reported.")
    print()
    header = [
        "model",
        "median ms",
        "99 % ms",
        "per second",
        "decode ms",
        "peak MiB",
        "predicted",
        "weights MiB",
        "as fp32",
        "cold start ms",
        "mJ",
    ]
    for peer in peers:
        header += [f"time / {peer}", f"peak / {peer}"]
    print("| " + " | ".join(header) + " |")
    print("|---" + "|--:" * (len(header) - 1) + "|")
    for name, each in found.items():
        print("| " + " | ".join(row(name, each, peers)) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
