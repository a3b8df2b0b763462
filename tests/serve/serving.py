"""The service as users start it, in a process of its own, and a client that says exactly what it is told to say."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float = 30) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Running:
    """A service in a process of its own, with a folder of its own."""

    def __init__(self, folder: Path, settings: dict[str, Any], environment: dict[str, str]) -> None:
        self.folder = folder
        self.path = folder / "http.sock"
        self.models = folder / "models"
        self.settings = {"listen": ["127.0.0.1:0", f"unix:{self.path}"], "models": str(self.models), "poll_interval": 0.1, "threads": 1}
        self.settings |= settings
        self.log: list[str] = []
        self.port = 0
        self._environment = environment
        self.start()

    def write_config(self) -> None:
        (self.folder / "serve.yaml").write_text(json.dumps(self.settings))  # JSON is YAML

    def start(self, wait: bool = True) -> None:
        self.write_config()
        command = [sys.executable, "-m", "edgeinfer.cli", "serve", "--config", str(self.folder / "serve.yaml")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", **self._environment}
        environment.pop("JOURNAL_STREAM", None)
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True, cwd=self.folder)
        self.log, self.port = [], 0
        threading.Thread(target=self._read_log, daemon=True).start()
        if wait:
            self.wait_for(lambda: self.said("ready after"), "it to be ready")

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            found = re.search(r"listening on 127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found[1])
            self.log.append(line)

    def said(self, text: str) -> bool:
        return any(text in line for line in list(self.log))

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None or condition(), "the service ended:\n" + "".join(self.log)
            assert time.monotonic() < until, f"waited {seconds} s for {what}:\n" + "".join(self.log)
            time.sleep(0.02)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def raw(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        return sock

    def call(
        self, method: str, path: str, body: bytes | str | dict | None = None, headers: dict[str, str] | None = None, unix: bool = False
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers in lower case, body) of one request on a connection of its own."""
        connection = UnixConnection(self.path) if unix else self.connect()
        try:
            connection.request(method, path, json.dumps(body) if isinstance(body, dict) else body, headers or {})
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def infer(self, feed: dict[str, np.ndarray], model: str = "small", **extra: Any) -> dict[str, np.ndarray]:
        """Outputs of a binary inference that has to succeed."""
        status, headers, body = self.call("POST", f"/v2/models/{model}/infer", *binary_request(feed, **extra))
        assert status == 200, body
        return binary_outputs(headers, body)

    def rss(self) -> int:
        return status_bytes(self.process.pid, "VmRSS")

    def peak_rss(self) -> int:
        return status_bytes(self.process.pid, "VmHWM")

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


def status_bytes(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(key)


DATATYPES = {"float32": "FP32", "int64": "INT64"}


def json_request(feed: dict[str, np.ndarray], **extra: Any) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": name, "shape": list(a.shape), "datatype": DATATYPES[str(a.dtype)], "data": a.ravel().tolist()}
            for name, a in feed.items()
        ],
        **extra,
    }


def binary_request(feed: dict[str, np.ndarray], **extra: Any) -> tuple[bytes, dict[str, str]]:
    """(body, headers) with binary inputs, asking for binary outputs."""
    inputs = [
        {"name": n, "shape": list(a.shape), "datatype": DATATYPES[str(a.dtype)], "parameters": {"binary_data_size": a.nbytes}}
        for n, a in feed.items()
    ]
    parameters = {"binary_data_output": True, **extra.pop("parameters", {})}
    head = json.dumps({"inputs": inputs, "parameters": parameters, **extra}).encode()
    body = head + b"".join(a.tobytes() for a in feed.values())
    return body, {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}


def binary_outputs(headers: dict[str, str], body: bytes) -> dict[str, np.ndarray]:
    at = int(headers["inference-header-content-length"])
    found = {}
    for output in json.loads(body[:at])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        found[output["name"]] = np.frombuffer(body[at : at + size], dtype=np.float32).reshape(output["shape"])
        at += size
    assert at == len(body)
    return found
