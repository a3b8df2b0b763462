"""ONNX Runtime as a peer of ``bench``: in a process of its own, so that its memory is its own, running in turns when told to.

This file is both sides: :class:`Peer` runs it as a program, which imports nothing of edgeinfer, and talks to it in lines of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np


#: runs this file as a program that finds the same packages, but not the modules beside this file (one is called ``inspect``)
_SCRIPT = "import sys; sys.path[:] = {path!r}; exec(compile(open({file!r}).read(), {file!r}, 'exec'))"

_UNPACK = "import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], 'wb'))"


class Peer:
    """An ONNX Runtime session in a subprocess.

    Args:
        model: ``.onnx`` or ``.onnx.xz`` file.
        feed: the inputs of every run.
        threads: its intra-op threads; everything else is its default.

    Raises DependencyError where onnxruntime is missing, UsageError where it does not take the model.
    """

    def __init__(self, model: str, feed: Mapping[str, np.ndarray], threads: int) -> None:
        import subprocess
        import tempfile
        from pathlib import Path

        self._folder = tempfile.TemporaryDirectory(prefix="edgeinfer-bench-")
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        self._process: subprocess.Popen[str] | None = None
        try:
            folder = Path(self._folder.name)
            model = self._unpacked(model, folder)
            from .output import write_npz

            with open(folder / "feed.npz", "wb") as file:
                write_npz(file, feed)
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SCRIPT.format(path=sys.path, file=__file__), model, str(folder / "feed.npz"), str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                bufsize=1,
            )
            self._opened = self._read()
            self._seconds: list[float] = []
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _unpacked(model: str, folder: Any) -> str:
        try:
            with open(model, "rb"):
                model = os.path.abspath(model)
        except OSError as error:
            from ..errors import ModelFormatError

            raise ModelFormatError(f"{model}: cannot be read: {error.strerror}") from None
        if not model.endswith(".xz"):
            return model
        import subprocess

        # in a process of its own: xz takes tens of MiB, which would count as this process' peak or as the peer's
        done = subprocess.run(
            [sys.executable, "-c", _UNPACK, model, str(folder / "model.onnx")], capture_output=True, text=True, check=False, cwd=folder
        )
        if done.returncode:
            from ..errors import UsageError

            raise UsageError(f"{model}: cannot be unpacked: {(done.stderr.strip().splitlines() or ['unknown reason'])[-1]}")
        return str(folder / "model.onnx")

    def turn(self, duration: float, keep: bool = False) -> None:
        """Let it run for ``duration`` seconds; count the runs if ``keep``."""
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(f"{duration}\n")
        except BrokenPipeError:
            pass  # it died; its last words are read below
        seconds = self._read()["seconds"]
        if keep:
            self._seconds += seconds

    def result(self) -> dict[str, Any]:
        """Seconds of the kept runs, of the first one and of loading; peak resident bytes of its process; its version."""
        from ..runtime.ceiling import peak_footprint

        assert self._process is not None
        return {**self._opened, "seconds": self._seconds, "peak": peak_footprint(f"/proc/{self._process.pid}/status")}

    def _read(self) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._process.wait()
        from ..errors import DependencyError, UsageError

        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip().splitlines() or ["it ended without a word"]
        if "No module named 'onnxruntime'" in words[-1]:
            raise DependencyError("--against onnxruntime needs onnxruntime: pip install 'edgeinfer[bench]'")
        raise UsageError(f"onnxruntime failed: {words[-1]}")

    def close(self) -> None:
        """End the process and remove its files."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        self._errors.close()
        self._folder.cleanup()


def _serve(model: str, feed_file: str, threads: int) -> None:
    import numpy as np
    import onnxruntime

    with np.load(feed_file) as arrays:
        feed = {name: arrays[name] for name in arrays.files}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    began = time.perf_counter()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    loaded = time.perf_counter()
    session.run(None, feed)
    ran = time.perf_counter()
    print(json.dumps({"version": onnxruntime.__version__, "load": loaded - began, "first": ran - loaded}), flush=True)
    for line in sys.stdin:
        session.run(None, feed)  # warms up again after the other side's turn
        seconds: list[float] = []
        end = time.perf_counter() + float(line)
        while not seconds or time.perf_counter() < end:
            began = time.perf_counter()
            session.run(None, feed)
            seconds.append(time.perf_counter() - began)
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
