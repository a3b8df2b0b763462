"""Do ceilings hold? Networks x images x ceilings from the smallest feasible to plenty, each in a fresh process; hogs; a mixed run.

    python benchmarks/soak.py --images 1 8 --ceilings 12 --hogs 100 --minutes 3 bvlc_alexnet squeezenet

Fails (exit code 1) if a process was ever larger than its ceiling or its prediction, if the smallest ceiling that a plan names does not
work, if a hog is answered by anything but the right result or CeilingExceeded, or if the mixed
run leaves memory, descriptors or threads behind.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

MIB = 1 << 20

HOG = """
import json, sys
import numpy as np
import edgeinfer as ei
from edgeinfer.runtime.arena import Mapping
from edgeinfer.runtime.ceiling import footprint
path, room, tries, hog = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
with ei.InferenceSession(path, batch=4, threads=1) as session:
    spec = session.get_inputs()[0]
    x = np.random.default_rng(0).standard_normal([4 if isinstance(d, str) else d for d in spec.shape]).astype(np.float32)
    expected = session.run(None, {spec.name: x})[0].copy()
    peak = session.plan.predicted_peak_rss
limit = peak + room
counts = {"right": 0, "refused": 0, "wrong": 0, "over": 0}
for number in range(tries):
    taken = []
    def take(*layer):
        if len(taken) == 0:
            memory = Mapping(hog)
            memory.buffer(0, hog)[...] = 1
            taken.append(memory)
    with ei.InferenceSession(path, batch=4, threads=1, memory_limit=limit) as session:
        try:
            got = session.run(None, {spec.name: x}, on_layer=take)[0]
            counts["right" if np.array_equal(got, expected) else "wrong"] += 1
        except ei.CeilingExceeded:
            counts["refused"] += 1
        if taken:
            taken[0].close()
        if not np.array_equal(session.run(None, {spec.name: x})[0], expected):
            counts["wrong"] += 1
print(json.dumps(counts))
"""


def grid(options: argparse.Namespace, paths: dict[str, Path]) -> bool:
    from footprint import measure

    errors: list[float] = []
    fine = True
    print("| network | images | ceilings MiB | segments at the smallest | largest peak / ceiling | prediction errors |")
    print("|---|---|---|---|---|---|")
    for name, path in paths.items():
        for images in options.images:
            free = measure(str(path), None, images, options.threads)
            least, most = free["smallest_ceiling"], int(free["predicted_peak_rss"] * 1.3)
            ceilings = [least + (most - least) * i // max(options.ceilings - 1, 1) for i in range(options.ceilings)]
            shares, own, first = [], [], ""
            for ceiling in ceilings:
                found = measure(str(path), ceiling, images, options.threads)
                first = first or "/".join(map(str, found["segments"])) + (" streamed" if found["streamed_bytes"] else "")
                shares.append(found["peak_rss"] / ceiling)
                own.append(found["predicted_peak_rss"] / found["peak_rss"] - 1)
            errors += own
            fine &= max(shares) <= 1 and min(own) >= 0
            print(
                f"| {name} | {images} | {least / MIB:.1f} .. {most / MIB:.1f} | {first} | {max(shares):.4f} | "
                f"{min(own):+.2%} .. {max(own):+.2%}, median {statistics.median(own):+.2%} |",
                flush=True,
            )
    if errors:
        middle = statistics.median(errors)
        print(f"\n{len(errors)} cases: prediction errors {min(errors):+.2%} .. {max(errors):+.2%}, median {middle:+.2%}\n")
    return fine


def hogs(options: argparse.Namespace, paths: dict[str, Path]) -> bool:
    fine = True
    for name, path in paths.items():
        for room in (4 * MIB, 44 * MIB):
            arguments = [str(path), str(room), str(options.hogs), str(40 * MIB)]
            done = subprocess.run([sys.executable, "-c", HOG, *arguments], capture_output=True, text=True, check=False)
            if done.returncode:
                print(done.stderr[-2000:])
                return False
            counts: dict[str, Any] = json.loads(done.stdout)
            print(f"hog of 40 MiB, {room // MIB} MiB beside the plan, {name}: {counts}", flush=True)
            fine &= counts["wrong"] == 0 and counts["right"] + counts["refused"] == options.hogs
    return fine


def mixed(options: argparse.Namespace, paths: dict[str, Path]) -> bool:
    """Sessions of all networks opened, run with changing batches under changing ceilings, and closed, for some minutes."""
    import numpy as np

    import edgeinfer as ei
    from edgeinfer.runtime.ceiling import footprint

    draw = np.random.default_rng(1)
    names = list(paths)
    marks: list[tuple[int, int, int]] = []
    end = time.monotonic() + 60 * options.minutes
    rounds = 0
    while time.monotonic() < end:
        path = paths[names[rounds % len(names)]]
        with ei.InferenceSession(path, batch=int(draw.integers(1, 5)), threads=int(draw.integers(1, 3))) as session:
            spec = session.get_inputs()[0]
            assert session.plan is not None
            for limit in (None, session.plan.predicted_peak_rss + 64 * MIB, max(session.plan.smallest_ceiling, footprint()) + 16 * MIB):
                rows = int(draw.integers(1, 7)) if isinstance(spec.shape[0], str) else 1
                x = draw.standard_normal([rows, *(int(d) for d in spec.shape[1:])]).astype(np.float32)
                try:
                    session.set_memory_limit(limit)
                    session.run(None, {spec.name: x})
                except (ei.PlanError, ei.CeilingExceeded):
                    pass
        rounds += 1
        if rounds % len(names) == 0:
            gc.collect()
            marks.append((footprint(), len(os.listdir("/proc/self/fd")), threading.active_count()))
    settled = marks[len(marks) // 4 :]
    grown = settled[-1][0] - settled[0][0]
    print(f"{rounds} sessions in {options.minutes} min: resident {settled[0][0] / MIB:.1f} -> {settled[-1][0] / MIB:.1f} MiB, "
          f"descriptors {settled[0][1]} -> {settled[-1][1]}, threads {settled[0][2]} -> {settled[-1][2]}")  # fmt: skip
    return grown < 4 * MIB and settled[0][1:] == settled[-1][1:]


def main() -> None:
    import networks
    from latency import files

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(networks.LIGHT))
    parser.add_argument("--quantizer", default="kmeans")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--coder", default="packed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--ceilings", type=int, default=12)
    parser.add_argument("--hogs", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=30)
    options = parser.parse_args()
    paths = {name: files(name, options.quantizer, options.bits, options.coder)[1] for name in options.names}
    fine = grid(options, paths) if options.images else True
    if options.hogs:
        fine &= hogs(options, dict(list(paths.items())[:2]))
    if options.minutes:
        fine &= mixed(options, paths)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
