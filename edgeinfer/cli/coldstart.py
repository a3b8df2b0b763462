"""Cold start of a model: a fresh process, the file out of the page cache, until the first answer. Both sides of it are in this file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile  # noqa: F401  (what writing the inputs takes is taken before the model is planned)
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_CHILD = "import sys, time; began = time.monotonic(); sys.path[:] = {path!r}; from edgeinfer.cli.coldstart import child; child(began)"


def evict(path: str) -> None:
    """Ask the kernel to drop a file from the page cache. It may refuse what somebody maps or what is not on storage (tmpfs)."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)  # pages that wait to be written cannot be dropped
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


def measure(model: str, feed: Mapping[str, np.ndarray], options: Mapping[str, Any], times: int) -> dict[str, Any] | None:
    """Median over ``times`` fresh processes, in milliseconds: ``process`` (until Python runs), ``import``, ``open`` (read, check, plan),
    ``first`` (the first run), ``total``; ``read_bytes`` from storage and ``major`` faults of the median process. None for 0 times.

    ``options``: of InferenceSession. Only the model's file is evicted: Python and its libraries are as cold as the machine left them.
    """
    if times < 1:
        return None
    from ..errors import EdgeInferError
    from .output import write_npz

    found = []
    with tempfile.TemporaryDirectory(prefix="edgeinfer-bench-") as folder:
        inputs = Path(folder, "feed.npz")
        with open(inputs, "wb") as file:
            write_npz(file, feed)
        for _ in range(times):
            evict(model)
            started = time.monotonic()
            command = [sys.executable, "-c", _CHILD.format(path=sys.path), os.path.abspath(model), str(inputs), json.dumps(options)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise EdgeInferError(f"cold start of {model}: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
            answer = json.loads(done.stdout)
            answer["process"] = (answer.pop("began") - started) * 1e3
            answer["total"] = sum(answer[key] for key in ("process", "import", "open", "first"))
            found.append(answer)
    found.sort(key=lambda each: each["total"])
    return {**found[len(found) // 2], "times": times, "file_bytes": os.path.getsize(model)}


def child(began: float) -> None:
    """The fresh process: times itself and prints JSON."""
    import resource

    model, inputs, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    import edgeinfer

    session_class = edgeinfer.InferenceSession
    imported = time.monotonic()
    before = _read_bytes()
    session = session_class(model, **options)
    opened = time.monotonic()
    read = _read_bytes() - before
    import numpy as np

    with np.load(inputs) as arrays:
        feed = {name: arrays[name] for name in arrays.files}
    ready = time.monotonic()
    session.run(None, feed)
    ran = time.monotonic()
    spans = {"import": imported - began, "open": opened - imported, "first": ran - ready}
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    print(json.dumps({"began": began, **{k: v * 1e3 for k, v in spans.items()}, "read_bytes": read, "major": faults}))


def _read_bytes() -> int:
    """Bytes that this process made the kernel read from storage; 0 where the kernel does not count them."""
    try:
        with open("/proc/self/io") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("read_bytes:")), 0)
    except OSError:
        return 0
