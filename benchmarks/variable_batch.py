"""Throughput of plans with a batch size per layer against the best fixed batch, at ceilings where that is 1, 2, 4 ...

    python benchmarks/variable_batch.py --coder huffman --images 8 bvlc_alexnet

Each ceiling lies halfway between what that fixed batch and one image more take. Both plans are made for it in one process and run in turns;
the rate is images over the least time of a round.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))


def rounds(options: argparse.Namespace, path: str, fixed: int) -> dict[str, Any]:
    """Run in a fresh process: the ceiling at which the best fixed batch is ``fixed``, and both plans under it."""
    command = [sys.executable, __file__, "--child", path, "--fixed", str(fixed), "--images", str(options.images), "--threads"]
    command += [str(options.threads), "--seconds", str(options.seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout))


def child(options: argparse.Namespace) -> None:
    import numpy as np

    from edgeinfer.runtime import plan as planning
    from edgeinfer.runtime.arena import Mapping
    from edgeinfer.runtime.ceiling import footprint
    from edgeinfer.runtime.execution import Execution
    from edgeinfer.runtime.weights import open_store

    store = open_store(options.child)
    baseline = footprint()
    kernels = planning.choose_kernels()

    def single(batch: int) -> tuple[planning.Plan, Execution]:
        made, execution = planning.make_plan(
            store, batch=batch, threads=options.threads, baseline=baseline, residency="compressed", kernels=kernels, shared=True
        )
        return made, execution

    made, execution = single(options.fixed)
    following, _ = single(options.fixed + 1)
    # halfway to what one more image would take, so the best fixed batch is this one; inputs and outputs are charged for all images alike
    image = made.io_bytes // options.fixed
    needs = [plan.predicted_peak_rss - plan.io_bytes for plan in (made, following)]
    limit = sum(needs) // 2 + image * options.images
    variable, other = planning.make_plan(
        store,
        batch=options.images,
        memory_limit=limit,
        threads=options.threads,
        baseline=baseline,
        residency="compressed",
        kernels=kernels,
        shared=True,
    )
    store.load()
    generator = np.random.default_rng(0)
    sides = []
    for plan, run in ((made, execution), (variable, other)):
        memory = Mapping(run.arena_bytes)
        run.bind(memory)
        feeds = {}
        for spec in store.graph.inputs:
            feeds[spec.name] = generator.standard_normal(run.lowered.specs[spec.name].shape).astype(np.float32)
        outputs = {s.name: np.empty(run.lowered.specs[s.name].shape, np.float32) for s in store.graph.outputs}
        run.run(feeds, outputs)
        sides.append((plan, run, feeds, outputs, memory))
    best = [float("inf")] * 2
    end = time.perf_counter() + options.seconds
    while time.perf_counter() < end:
        for number, (plan, run, feeds, outputs, _) in enumerate(sides):
            for _ in range(max(1, variable.batch // plan.batch) if number == 0 else 1):
                began = time.perf_counter()
                run.run(feeds, outputs)
                best[number] = min(best[number], (time.perf_counter() - began) / plan.batch)
    print(
        json.dumps(
            {
                "limit": limit,
                "kernels": kernels,
                "fixed_ms": best[0] * 1e3,
                "variable_ms": best[1] * 1e3,
                "ratio": best[0] / best[1],
                "expected": made.predicted_ms_per_image / variable.predicted_ms_per_image,
                "scratch_limit": variable.scratch_limit,
                "segments": [s.batch for s in variable.segments],
                "cuts": [variable.nodes[s.first] for s in variable.segments[1:]],
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["bvlc_alexnet"])
    parser.add_argument("--quantizer", default="kmeans")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--coder", default="huffman")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6.0, help="per ceiling")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--fixed", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    from latency import files

    print("| network | coder | kernels | ceiling MiB | fixed batch | ms per image | segments | ms per image | ratio | expected |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in options.names:
        _, path = files(name, options.quantizer, options.bits, options.coder)
        ratios = []
        for fixed in options.batches:
            r = rounds(options, os.fspath(path), fixed)
            ratios.append(r["ratio"])
            print(
                f"| {name} | {options.coder} | {r['kernels']} | {r['limit'] / (1 << 20):.1f} | {fixed} | {r['fixed_ms']:.2f} | "
                f"{' / '.join(map(str, r['segments']))} | {r['variable_ms']:.2f} | {r['ratio']:.2f} | {r['expected']:.2f} |",
                flush=True,
            )
        mean = 1.0
        for ratio in ratios:
            mean *= ratio ** (1 / len(ratios))
        print(f"\n{name}: geometric mean {mean:.2f}\n", flush=True)


if __name__ == "__main__":
    main()
