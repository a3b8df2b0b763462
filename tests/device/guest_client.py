"""Runs inside the emulated machine: asks the service over its unix socket for digits and compares the answers with their labels.

    guest_client.py SOCKET [MODEL] [COUNT]

Standard library and numpy alone. Prints one line; exit code 1 where an answer is wrong or does not come.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
import time

import numpy as np

from edgeinfer.demo.trial import SAMPLES


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def main() -> int:
    path, model, count = sys.argv[1], (sys.argv[2:] or ["digits"])[0], int((sys.argv[3:] or ["8"])[0])
    with np.load(SAMPLES) as samples:
        images, labels = samples["digits"][:count], samples["labels"][:count]
    seconds, right = [], 0
    for image, label in zip(images, labels, strict=True):
        values = (image.astype(np.float32) / 16).ravel().tolist()
        request = {"inputs": [{"name": "digits", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": values}]}
        began = time.perf_counter()
        connection = UnixConnection(path)
        connection.request("POST", f"/v2/models/{model}/infer", json.dumps(request), {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        seconds.append(time.perf_counter() - began)
        if response.status != 200:
            print(f"status {response.status}: {body[:200]!r}")
            return 1
        right += int(np.argmax(json.loads(body)["outputs"][0]["data"])) == int(label)
    print(f"{right} of {count} digits right, median {1e3 * float(np.median(seconds)):.1f} ms of the guest's clock")
    return int(right < 0.9 * count)


if __name__ == "__main__":
    sys.exit(main())
