"""Peak resident memory of a fresh process that runs a network, against the prediction and under the smallest ceiling.

    python benchmarks/footprint.py --bits 4 bvlc_alexnet squeezenet

Each network runs in a new interpreter, once without a limit and once with the smallest ceiling its plan names.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from latency import files

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

CHILD = """
import json, sys
import edgeinfer as ei
from edgeinfer.runtime.session import InferenceSession
path, limit, batch, threads = sys.argv[1], sys.argv[2] or None, int(sys.argv[3]), int(sys.argv[4])
session = InferenceSession(path, memory_limit=limit, batch=batch, threads=threads, symbols=json.loads(sys.argv[5]))
import numpy as np
symbols = json.loads(sys.argv[5])
feed = {}
for spec in session.get_inputs():
    shape = [symbols.get(d, batch) if isinstance(d, str) else d for d in spec.shape]
    kind = {"tensor(float)": np.float32, "tensor(int64)": np.int64}[spec.type]
    feed[spec.name] = np.ones(shape, dtype=kind)
for _ in range(3):
    session.run(None, feed)
report = session.memory_report()
report.pop("regions")
report["smallest_ceiling"] = session.plan.smallest_ceiling
report["batch"] = session.plan.batch
report["segments"] = [s.batch for s in session.plan.segments]
print(json.dumps(report))
"""


def measure(path: str, limit: int | None = None, batch: int = 1, threads: int = 1, symbols: dict[str, int] | None = None) -> dict:
    """``memory_report`` of a fresh process after three runs."""
    arguments = [path, str(limit or ""), str(batch), str(threads), json.dumps(symbols or {})]
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def main() -> None:
    import networks

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(networks.LIGHT))
    parser.add_argument("--quantizer", default="kmeans")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--coder", default="packed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    print("MiB\n\n| network | baseline | compressed | predicted peak | measured peak | error | peak under / smallest ceiling |")
    print("|---|---|---|---|---|---|---|")
    mib = 1 << 20
    for name in options.names:
        _, target = files(name, options.quantizer, options.bits, options.coder)
        symbols = {"S": 128} if name == "minilm" else {"T": 100} if name == "nsnet2" else {}
        free = measure(str(target), None, options.batch, options.threads, symbols)
        tight = measure(str(target), free["smallest_ceiling"], options.batch, options.threads, symbols)
        error = free["predicted_peak_rss"] / free["peak_rss"] - 1
        cells = [free[k] / mib for k in ("baseline_rss", "compressed_resident_bytes", "predicted_peak_rss", "peak_rss")]
        row = " | ".join(f"{cell:.2f}" for cell in cells)
        print(f"| {name} | {row} | {error:+.1%} | {tight['peak_rss'] / mib:.2f} / {free['smallest_ceiling'] / mib:.2f} |", flush=True)


if __name__ == "__main__":
    main()
