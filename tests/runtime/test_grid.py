"""Ceilings in real processes: three networks at four ceilings from the smallest feasible on; ``make soak`` walks the full grid."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from random_networks import random_container

pytest.importorskip("onnx")

CHILD = """
import json, sys
import numpy as np
import edgeinfer as ei
session = ei.InferenceSession(sys.argv[1], memory_limit=int(sys.argv[2]) or None, batch=8, threads=1)
spec = session.get_inputs()[0]
x = np.ones([8 if isinstance(d, str) else d for d in spec.shape], np.float32)
for _ in range(3):
    session.run(None, {spec.name: x})
report = session.memory_report()
print(json.dumps([report["peak_rss"], report["predicted_peak_rss"], session.plan.smallest_ceiling]))
"""


def peak(path: Path, limit: int) -> tuple[int, int, int]:
    """(measured peak, predicted peak, smallest ceiling) of a fresh process."""
    done = subprocess.run([sys.executable, "-c", CHILD, str(path), str(limit)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measured, predicted, smallest = json.loads(done.stdout)
    return measured, predicted, smallest


@pytest.mark.parametrize("seed", [7, 8, 14])
def test_no_accepted_ceiling_is_passed(seed: int, tmp_path: Path) -> None:
    path = random_container(seed, tmp_path)
    measured, predicted, smallest = peak(path, 0)
    assert measured <= predicted
    for part in range(4):
        ceiling = smallest + (8 << 20) * part // 3
        measured, predicted, _ = peak(path, ceiling)
        assert measured <= predicted <= ceiling
