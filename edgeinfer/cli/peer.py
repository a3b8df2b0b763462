"""Another runtime as a peer of ``bench``: in a process of its own, so that its memory is its own, running in turns when told to.

``RUNTIMES`` lists them. ncnn does not read ONNX: its converter ``pnnx`` turns the file into ncnn's own, with its defaults, before
anything is measured; a ``.param`` file with its ``.bin`` beside it is taken as it is.

This file is both sides: :class:`Peer` runs it as a program, which imports nothing of edgeinfer, and talks to it in lines of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np


#: runs this file as a program that finds the same packages, but not the modules beside this file (one is called ``inspect``)
_SCRIPT = "import sys; sys.path[:] = {path!r}; exec(compile(open({file!r}).read(), {file!r}, 'exec'))"

#: name -> file endings it takes, and how to get it
RUNTIMES = {
    "onnxruntime": ((".onnx", ".onnx.xz"), "pip install 'edgeinfer[bench]'"),
    "ncnn": ((".onnx", ".onnx.xz", ".param"), "pip install ncnn, and for .onnx files: pip install --no-deps pnnx"),
}

_UNPACK = "import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], 'wb'))"


class Peer:
    """A session of another runtime in a subprocess.

    Args:
        runtime: a name of RUNTIMES.
        model: a file with one of its endings.
        feed: the inputs of every run, in the order of the model.
        threads: its threads; everything else is its default.

    Raises DependencyError where it is missing, UsageError where it does not take the model.
    """

    def __init__(self, runtime: str, model: str, feed: Mapping[str, np.ndarray], threads: int) -> None:
        import subprocess
        import tempfile
        from pathlib import Path

        self.runtime = runtime
        self._folder = tempfile.TemporaryDirectory(prefix="edgeinfer-bench-")
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        self._process: subprocess.Popen[str] | None = None
        try:
            folder = Path(self._folder.name)
            model = self._unpacked(model, folder)
            if runtime == "ncnn" and not model.endswith(".param"):
                model = self._converted(model, folder, feed)
            from .output import write_npz

            with open(folder / "feed.npz", "wb") as file:
                write_npz(file, feed)
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _SCRIPT.format(path=sys.path, file=__file__),
                    runtime,
                    model,
                    str(folder / "feed.npz"),
                    str(threads),
                ],
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

    @staticmethod
    def _converted(model: str, folder: Any, feed: Mapping[str, np.ndarray]) -> str:
        """An ONNX file as ncnn's ``.param`` and ``.bin``, for the shapes of one sample. The converter writes beside its source: a link."""
        import importlib.util
        import subprocess
        from pathlib import Path

        from ..errors import DependencyError, UsageError

        found = importlib.util.find_spec("pnnx")  # not imported: the package wants PyTorch, the program in it does not
        program = Path(found.origin or "").parent / "pnnx" if found is not None else None
        if program is None or not program.exists():
            raise DependencyError("--against ncnn needs its converter pnnx: pip install --no-deps pnnx (or give a .param file)")
        link = folder / "source.onnx"
        if Path(model).parent != folder:
            link.symlink_to(model)
        else:
            Path(model).rename(link)
        shapes = ",".join("[" + ",".join(map(str, (1, *array.shape[1:]))) + "]" for array in feed.values())
        if not os.access(program, os.X_OK):
            raise DependencyError(f"{program} is not executable: chmod +x {program}")
        command = [str(program), str(link), f"inputshape={shapes}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        if not (folder / "source.ncnn.param").exists():
            words = (done.stderr + done.stdout).strip().splitlines() or ["it ended without a word"]
            raise UsageError(f"{model}: pnnx cannot convert it for ncnn: {words[-1]}")
        return str(folder / "source.ncnn.param")

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
        if f"No module named '{self.runtime}'" in words[-1]:
            raise DependencyError(f"--against {self.runtime} needs {self.runtime}: {RUNTIMES[self.runtime][1]}")
        signal = f" (signal {-self._process.returncode})" if self._process.returncode < 0 else ""
        raise UsageError(f"{self.runtime} failed: {words[-1]}{signal}")

    def close(self) -> None:
        """End the process and remove its files."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        self._errors.close()
        self._folder.cleanup()


def _onnxruntime(model: str, feed: dict[str, Any], threads: int) -> tuple[str, Callable[[], Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return onnxruntime.__version__, lambda: session.run(None, feed)


def _ncnn(model: str, feed: dict[str, Any], threads: int) -> tuple[str, Callable[[], Any]]:
    """ncnn has no batch: samples run one after the other. Its inputs are in the order of the ONNX file's."""
    import ncnn
    import numpy as np

    network = ncnn.Net()
    network.opt.num_threads = threads
    network.opt.use_vulkan_compute = False
    if network.load_param(model) or network.load_model(model.removesuffix(".param") + ".bin"):
        raise SystemExit(f"{model}: ncnn cannot load it")
    inputs, outputs = network.input_names(), network.output_names()
    if len(inputs) != len(feed):
        raise SystemExit(f"{model}: {len(inputs)} inputs, but {len(feed)} arrays to feed")
    arrays = list(feed.values())

    def run() -> None:
        for row in range(len(arrays[0])):
            extractor = network.create_extractor()
            for name, array in zip(inputs, arrays, strict=True):
                # a copy: its own first layer may work in place, and crashes on memory that it does not own
                if extractor.input(name, ncnn.Mat(array[row]).clone()):
                    raise SystemExit(f"{model}: ncnn does not take input {name}")
            for name in outputs:
                status, mat = extractor.extract(name)
                if status:
                    raise SystemExit(f"{model}: ncnn fails with status {status}")
                np.array(mat)

    return ncnn.__version__, run


def _serve(runtime: str, model: str, feed_file: str, threads: int) -> None:
    import numpy as np

    with np.load(feed_file) as arrays:
        feed = {name: arrays[name] for name in arrays.files}
    __import__(runtime)  # its libraries are no part of loading a model
    began = time.perf_counter()
    version, run = {"onnxruntime": _onnxruntime, "ncnn": _ncnn}[runtime](model, feed, threads)
    loaded = time.perf_counter()
    run()
    ran = time.perf_counter()
    print(json.dumps({"version": version, "load": loaded - began, "first": ran - loaded}), flush=True)
    for line in sys.stdin:
        run()  # warms up again after the other side's turn
        seconds: list[float] = []
        end = time.perf_counter() + float(line)
        while not seconds or time.perf_counter() < end:
            began = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - began)
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
