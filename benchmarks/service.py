"""The service measured from outside: idle memory, what it adds to a run, and a crowd at a ceiling.

    python benchmarks/service.py idle MODEL.edge
    python benchmarks/service.py overhead MODEL.edge --seconds 10
    python benchmarks/service.py load MODEL.edge --clients 64 --seconds 60 --memory-limit 64MiB

``idle``: resident memory with the model loaded, before a request and five seconds after one. ``overhead``: one client, binary tensors
over a unix socket, in turns of half a second with a session in this process on the same input, and with a process that only receives and
answers as many bytes (``copy``). ``load``: clients in threads of another process,
each asking again as soon as it is answered (after Retry-After where it is told so).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "serve")]

from serving import Running, UnixConnection, binary_outputs, binary_request, json_request  # noqa: E402

import edgeinfer as ei  # noqa: E402
import edgeinfer.sizes  # noqa: E402


def serve(model: Path, folder: Path, limit: str, threads: int, **settings: object) -> Running:
    (folder / "models").mkdir()
    (folder / "models" / "model.edge").write_bytes(model.read_bytes())
    (folder / "spill").mkdir()
    return Running(folder, {"memory_limit": limit, "threads": threads, "spill": str(folder / "spill"), "poll_interval": 2} | settings, {})


def feed_of(session: ei.InferenceSession, rows: int = 1) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
    shapes = {arg.name: ([rows if isinstance(d, str) else d for d in arg.shape], kinds[arg.type]) for arg in session.get_inputs()}
    return {name: generator.random(shape).astype(kind) for name, (shape, kind) in shapes.items()}


def idle(arguments: argparse.Namespace, folder: Path) -> dict:
    with ei.InferenceSession(arguments.model, threads=1) as session:
        feed = feed_of(session)
    service = serve(arguments.model, folder, arguments.memory_limit, arguments.threads)
    try:
        time.sleep(5)
        before = service.rss()
        found = {"before": before}
        service.infer(feed, "model")
        time.sleep(5)
        found["after_binary"] = service.rss()
        assert service.call("POST", "/v2/models/model/infer", json_request(feed))[0] == 200
        time.sleep(5)
        found["after_json"], found["peak"] = service.rss(), service.peak_rss()
    finally:
        service.stop()
    return {name: round(value / 2**20, 2) for name, value in found.items()}


def overhead(arguments: argparse.Namespace, folder: Path) -> dict:
    service = serve(arguments.model, folder, arguments.memory_limit, arguments.threads)
    session = ei.InferenceSession(arguments.model, threads=arguments.threads, memory_limit="1GiB")  # watched, like the service's
    feed = feed_of(session)
    expected = session.run(None, feed)
    body, headers = binary_request(feed)
    connection = UnixConnection(service.path)

    def ask() -> None:
        connection.request("POST", "/v2/models/model/infer", body, headers)
        response = connection.getresponse()
        content = response.read()
        assert response.status == 200, content
        found = binary_outputs({k.lower(): v for k, v in response.getheaders()}, content)
        assert all(np.array_equal(a, b) for a, b in zip(found.values(), expected, strict=True))

    def direct() -> None:
        session.run(None, feed)

    answered = sum(a.nbytes for a in expected)
    echoing = subprocess.Popen([sys.executable, "-c", ECHO, str(folder / "echo"), str(len(body)), str(answered)])
    while not (folder / "echo").exists():
        time.sleep(0.01)
    echo = socket.socket(socket.AF_UNIX)
    echo.connect(str(folder / "echo"))

    def copy() -> None:
        echo.sendall(body)
        left = answered
        while left:
            left -= len(echo.recv(left))

    runs: dict[str, Callable[[], None]] = {"direct": direct, "copy": copy, "service": ask}
    times: dict[str, list[float]] = {name: [] for name in runs}
    gc.collect()
    gc.freeze()  # the client's own collections are not the service's time
    try:
        for run in runs.values():
            for _ in range(5):
                run()
        until = time.perf_counter() + arguments.seconds
        while time.perf_counter() < until:
            for name, run in runs.items():
                turn = time.perf_counter() + 0.5
                while time.perf_counter() < turn:
                    began = time.perf_counter()
                    run()
                    times[name].append((time.perf_counter() - began) * 1e3)
        inside = json.loads(service.call("GET", "/v2/models/model/stats")[2])["model_stats"][0]["inference_stats"]["compute_infer"]
    finally:
        connection.close()
        echo.close()
        echoing.wait()
        service.stop()
    table = {name: {f"p{q}": round(float(np.percentile(t, q)), 3) for q in (50, 90, 99)} | {"runs": len(t)} for name, t in times.items()}
    for name, parts in (("over_direct", ("direct",)), ("over_direct_and_copy", ("direct", "copy"))):
        table[name] = {q: round(table["service"][q] - sum(table[part][q] for part in parts), 3) for q in ("p50", "p90", "p99")}
    table["service"]["mean"] = round(sum(times["service"]) / len(times["service"]), 3)
    table["service"]["mean_inside_run"] = round(inside["ns"] / inside["count"] / 1e6, 3)
    return table | {"copied_bytes": len(body) + answered}


ECHO = """
import socket, sys
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen()
taken, given = int(sys.argv[2]), bytes(int(sys.argv[3]))
room = memoryview(bytearray(taken))
connection, _ = listening.accept()
while True:
    done = 0
    while done < taken:
        got = connection.recv_into(room[done:])
        if not got:
            sys.exit()
        done += got
    connection.sendall(given)
"""

CLIENTS = """
import json, sys, threading, time
sys.path[:0] = json.loads(sys.argv[1])
from collections import Counter
from serving import UnixConnection
path, clients, seconds, bodies = sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), [open(name, "rb").read() for name in sys.argv[6:]]
headers = json.loads(sys.argv[5])
codes, times, problems = Counter(), [], Counter()
until = time.monotonic() + seconds
def ask(number):
    connection = UnixConnection(path, 120)
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            connection.request("POST", "/v2/models/model/infer", bodies[number % len(bodies)], headers)
            response = connection.getresponse()
            response.read()
            codes[response.status] += 1
            if response.status == 200:
                times.append(time.monotonic() - began)
            elif response.getheader("Retry-After"):
                time.sleep(min(1.0, float(response.getheader("Retry-After"))))
        except Exception as error:
            problems[type(error).__name__] += 1
            connection.close()
threads = [threading.Thread(target=ask, args=(n,)) for n in range(clients)]
for t in threads: t.start()
for t in threads: t.join()
times.sort()
found = {"p50_ms": 1e3 * times[len(times) // 2], "p99_ms": 1e3 * times[len(times) * 99 // 100]}
print(json.dumps(found | {"codes": codes, "problems": problems}))
"""


def load(arguments: argparse.Namespace, folder: Path) -> dict:
    with ei.InferenceSession(arguments.model, threads=1) as session:
        body, headers = binary_request(feed_of(session), parameters={"timeout": "5s"})
    (folder / "body").write_bytes(body)
    service = serve(arguments.model, folder, arguments.memory_limit, arguments.threads)
    peak, ends = [0], threading.Event()

    def watch() -> None:
        while not ends.wait(0.01):
            peak[0] = max(peak[0], service.rss())

    watching = threading.Thread(target=watch)
    watching.start()
    paths = json.dumps(sys.path[:2])
    command = [sys.executable, "-c", CLIENTS, paths, str(service.path), str(arguments.clients), str(arguments.seconds), json.dumps(headers)]
    done = subprocess.run([*command, str(folder / "body")], capture_output=True, text=True, check=False)
    ends.set()
    watching.join()
    try:
        if done.returncode:
            raise RuntimeError(done.stderr)
        found = json.loads(done.stdout)
        stats = json.loads(service.call("GET", "/v2/models/model/stats")[2])["model_stats"][0]
        found["mean_batch"] = round(stats["inference_count"] / stats["execution_count"], 2)
        found["answers_per_s"] = round(sum(found["codes"].values()) / arguments.seconds, 1)
        found |= {"rss_peak_mib": round(max(peak[0], service.peak_rss()) / 2**20, 2), "ceiling": arguments.memory_limit}
        found["process_alive"] = service.process.poll() is None
        time.sleep(5)
        found["rss_5s_after_mib"] = round(service.rss() / 2**20, 2)
        assert not set(found["codes"]) - {"200", "429", "503", "504"} and not Counter(found["problems"]), found
        assert service.peak_rss() <= ei.sizes.parse_size(arguments.memory_limit), found
    finally:
        code = service.stop()
    return found | {"exit": code}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["idle", "overhead", "load"])
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--memory-limit", default="64MiB")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(globals()[arguments.what](arguments, Path(folder)), indent=1))


if __name__ == "__main__":
    main()
