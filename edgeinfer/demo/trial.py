"""The demo's experiment: a container runs the shipped sample digits in a fresh process under a ceiling, and tells what it took.

The fresh process runs :func:`main` of this module and imports nothing but what running needs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SAMPLES = FOLDER / "digits.npz"
CEILING = 48 << 20


def trial(container: str, memory_limit: int | None) -> dict[str, Any]:
    """Run every sample digit, one at a time, in a fresh interpreter.

    Returns what :func:`measure` prints. Where the ceiling is refused: ``{"error": ..., "smallest_ceiling": bytes}``.
    Raises RuntimeError with the process' last words where it failed otherwise.
    """
    program = f"import sys; sys.path[:] = {sys.path!r}; from edgeinfer.demo.trial import main; main()"
    command = [sys.executable, "-c", program, container, str(memory_limit or 0)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RuntimeError(f"the demo's process failed: {words[-1]}")
    return json.loads(done.stdout)


def measure(container: str, memory_limit: int | None) -> dict[str, Any]:
    """Predictions, seconds per digit and the session's memory report."""
    import time

    import numpy as np

    import edgeinfer as ei

    with np.load(SAMPLES) as samples:
        digits, labels = samples["digits"], samples["labels"]
    inputs = (digits.astype(np.float32) / 16)[:, None]
    try:
        session = ei.InferenceSession(container, memory_limit=memory_limit)
    except ei.PlanError as error:
        return {"error": str(error), "smallest_ceiling": error.smallest_ceiling}
    with session:
        seconds, classes = [], []
        for image in inputs:
            began = time.perf_counter()
            (logits,) = session.run(None, {"digits": image[None]})
            seconds.append(time.perf_counter() - began)
            classes.append(int(logits[0].argmax()))
        report = session.memory_report()
        assert session.plan is not None
        return {
            "classes": classes,
            "accuracy": float((np.array(classes) == labels).mean()),
            "seconds": seconds,
            "kernels": session.kernels,
            "threads": session.threads,
            "smallest_ceiling": session.plan.smallest_ceiling,
            "streamed_bytes": session.plan.streamed_bytes,
            **{key: report[key] for key in ("baseline_rss", "peak_rss", "predicted_peak_rss", "memory_limit")},
        }


def main() -> None:
    """The fresh process."""
    sys.stdout.write(json.dumps(measure(sys.argv[1], int(sys.argv[2]) or None)))
