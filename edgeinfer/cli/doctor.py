"""``edgeinfer doctor``: what this device is, and what that means for the configuration."""

from __future__ import annotations

import argparse
import mmap
import os
import time
from pathlib import Path
from typing import Any

from ..errors import EdgeInferError, UsageError
from ..runtime import board, ceiling
from ..sizes import format_size
from .output import add_json_argument, check_writable, report

SUMMARY = "Say what this device is (CPU, memory, cgroup limit, storage, throttling) and what that means for running models on it."
EXAMPLE = """  edgeinfer doctor
  edgeinfer doctor --folder /srv/models --json"""

#: most bytes that measuring the storage reads: 1.5 s of an SD card at 45 MB/s
READ_BYTES = 64 << 20
READ_BLOCK = 1 << 20
#: a smaller file says more about opening files than about reading
LEAST_FILE = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder", default=".", metavar="DIR", help="measure the storage under this folder, by reading its largest file (default: here)"
    )
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    check_writable(args.json)
    if not Path(args.folder).is_dir():
        raise UsageError(f"--folder {args.folder}: no such folder")
    document = survey(args.folder)
    report(args, document, lambda: _text(document))


def survey(folder: str, root: str = "/") -> dict[str, Any]:
    """What there is to know, JSON values; ``None`` where the device does not tell. ``root`` stands for ``/`` of ``/proc`` and ``/sys``."""
    from ..kernels.codec import available_kernels
    from ..runtime.plan import choose_kernels, choose_threads

    try:
        used: str | None = choose_kernels()
        problem = None
    except EdgeInferError as error:  # EDGEINFER_KERNELS names a variant that is not there; the doctor says so instead of failing
        used, problem = None, str(error)
    group = ceiling.cgroup_limit(str(Path(root, "proc")), str(Path(root, "sys/fs/cgroup")))
    throttling = board.throttling(root)
    clock = board.clock(root)
    document: dict[str, Any] = {
        "board": board.model_name(root),
        "cpu": {
            "features": board.cpu_features(root),
            "cores": choose_threads(None) if not os.environ.get("EDGEINFER_THREADS") else len(os.sched_getaffinity(0)),
            "clock_mhz": None if clock is None else {"now": clock[0], "most": clock[1]},
            "governor": board.governor(root),
        },
        "kernels": {"available": available_kernels(), "used": used, "problem": problem},
        "memory_bytes": board.memory(root),
        "baseline_rss": ceiling.footprint(),
        "cgroup": {"limit": group.limit, "version": group.version, "enforced": group.enforced, "path": group.path},
        "storage": read_rate(Path(folder)),
        "temperature_celsius": board.temperature(root),
        "throttling": None if throttling is None else {"now": list(throttling.now), "since_boot": list(throttling.since_boot)},
    }
    document["advice"] = advice(document)
    return document


def read_rate(folder: Path) -> dict[str, Any]:
    """Bytes per second of reading the largest file of ``folder`` past the page cache, at most READ_BYTES of it. Writes nothing."""
    files = []
    for entry in os.scandir(folder):
        try:
            if entry.is_file(follow_symlinks=False) and entry.stat().st_size >= LEAST_FILE:
                files.append((entry.stat().st_size, entry.path))
        except OSError:
            continue
    for size, path in sorted(files, reverse=True):
        try:
            nbytes, spent, direct = _read_uncached(path, min(size, READ_BYTES) // READ_BLOCK * READ_BLOCK)
        except OSError:
            continue
        return {"bytes_per_s": nbytes / spent, "bytes": nbytes, "file": path, "uncached": direct}
    return {"bytes_per_s": None, "reason": f"{folder} holds no readable file of {format_size(LEAST_FILE)} or more"}


def _read_uncached(path: str, nbytes: int) -> tuple[int, float, bool]:
    """(bytes read, seconds, whether the page cache was surely bypassed)."""
    buffer = mmap.mmap(-1, READ_BLOCK)  # page aligned, as O_DIRECT wants it
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC
        for extra in (getattr(os, "O_DIRECT", 0), 0):
            try:
                file = os.open(path, flags | extra)
            except OSError:
                if extra:
                    continue  # tmpfs and some others refuse O_DIRECT
                raise
            try:
                if not extra and hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                began = time.perf_counter()
                done = 0
                while done < nbytes:
                    got = os.readv(file, [buffer])
                    if got <= 0:
                        break
                    done += got
                if done:
                    return done, time.perf_counter() - began, bool(extra)
            except OSError:
                if not extra:
                    raise
            finally:
                os.close(file)
    finally:
        buffer.close()
    raise OSError(f"{path}: nothing could be read")


def advice(found: dict[str, Any]) -> list[str]:
    """What the findings mean for the configuration, in whole sentences."""
    words = []
    kernels, group, memory = found["kernels"], found["cgroup"], found["memory_bytes"]
    if kernels["problem"]:
        words.append(f"No model will run: {kernels['problem']}. Unset EDGEINFER_KERNELS or choose one of these.")
    elif kernels["used"] == "plain":
        words.append("Only the plain kernels run here; expect a fraction of the speed of a CPU with AVX2 or NEON.")
    elif kernels["used"] != kernels["available"][0]:
        words.append(f"EDGEINFER_KERNELS forces {kernels['used']}, while this CPU can run {kernels['available'][0]}.")
    if not group["enforced"]:
        words.append(
            "No memory control group limits this process (stock Raspberry Pi OS switches the controller off), "
            "so MemoryMax= of systemd does nothing: rely on --memory-limit, which edgeinfer enforces itself."
        )
    elif group["limit"] is not None:
        words.append(
            f"The control group kills this process above {format_size(group['limit'])}; "
            f"plan with --memory-limit {group['limit'] * 9 // 10} or less."
        )
    elif "available" in memory:
        words.append(f"Nothing limits this process from outside; {format_size(memory['available'])} of memory are available now.")
    rate = found["storage"]["bytes_per_s"]
    if rate is not None:
        words.append(
            f"Loading reads about {format_size(rate)} per second: "
            f"each 10 MiB of compressed weights take {10 * 2**20 / rate:.2f} s to load, cold."
        )
    throttling = found["throttling"]
    if throttling is not None and throttling["now"]:
        words.append(f"The board slows down now ({', '.join(throttling['now'])}): latencies measured now are not its best.")
    if throttling is not None and "under-voltage" in (*throttling["now"], *throttling["since_boot"]):
        words.append("The power supply is too weak (under-voltage seen): use the board's own supply and a short cable.")
    temperature = found["temperature_celsius"]
    if temperature is not None and temperature >= 75:
        words.append(f"The CPU is at {temperature:.0f} degrees; most boards slow down from 80 on: add a heat sink or use fewer threads.")
    if found["cpu"]["governor"] in ("powersave", "conservative"):
        words.append(f"The clock follows the '{found['cpu']['governor']}' governor; 'ondemand' or 'performance' answers faster.")
    return words


def _text(found: dict[str, Any]) -> str:
    cpu, kernels, memory, group = found["cpu"], found["kernels"], found["memory_bytes"], found["cgroup"]
    storage, throttling = found["storage"], found["throttling"]
    clock = cpu["clock_mhz"]
    limit = (
        "off: no limit from outside is enforced"
        if not group["enforced"]
        else f"version {group['version']}, " + (format_size(group["limit"]) if group["limit"] is not None else "no limit")
    )
    if throttling is None:
        slow = "not reported"
    else:
        slow = f"now: {', '.join(throttling['now']) or 'none'}; since boot: {', '.join(throttling['since_boot']) or 'none'}"
    rows = [
        ("board", found["board"] or "not reported"),
        ("CPU", f"{cpu['cores']} core(s) for this process; {' '.join(cpu['features']) or 'no features reported'}"),
        (
            "clock",
            "not reported"
            if clock is None
            else f"{clock['now']:.0f} of {clock['most']:.0f} MHz, governor {cpu['governor'] or 'not reported'}",
        ),
        ("kernels", f"{', '.join(kernels['available'])}; used: {kernels['used'] or 'none'}"),
        ("memory", ", ".join(f"{format_size(nbytes)} {name}" for name, nbytes in memory.items()) or "not reported"),
        ("this process", f"{format_size(found['baseline_rss'])} resident with Python, NumPy and edgeinfer, before any model"),
        ("cgroup", limit),
        (
            "storage",
            storage["reason"]
            if storage["bytes_per_s"] is None
            else f"{format_size(storage['bytes_per_s'])} per second ({storage['file']})",
        ),
        ("temperature", "not reported" if found["temperature_celsius"] is None else f"{found['temperature_celsius']:.0f} degrees Celsius"),
        ("throttling", slow),
    ]
    lines = [f"{name:<13} {value}" for name, value in rows]
    return "\n".join(lines + [""] + [f"- {words}" for words in found["advice"]])
