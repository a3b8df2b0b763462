"""The service over its sockets: every route, JSON and binary inference, errors, deadlines, queue, ceiling, reload, drain."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from serving import Running, binary_outputs, binary_request, json_request
from small import feed

import edgeinfer as ei


@pytest.fixture(scope="module")
def expected(containers: list[Path]) -> list[np.ndarray]:
    """Answers of both containers to ``feed(3)``."""
    found = []
    for path in containers:
        with ei.InferenceSession(path, threads=1) as session:
            found.append(session.run(None, feed(3))[0])
    assert not np.array_equal(found[0], found[1])
    return found


# ---- routes


def test_server_health_and_metadata(service: Running) -> None:
    for unix in (False, True):
        status, headers, body = service.call("GET", "/v2", unix=unix)
        assert status == 200 and headers["content-type"] == "application/json"
        assert json.loads(body) == {
            "name": "edgeinfer",
            "version": ei.__version__,
            "extensions": ["binary_tensor_data", "model_repository", "statistics"],
        }
    assert json.loads(service.call("GET", "/v2/health/live")[2]) == {"live": True}
    assert service.call("GET", "/v2/health/ready")[0] == 200
    for path in ("/v2/models/small", "/v2/models/small/versions/1", "/v2/models/small/"):
        found = json.loads(service.call("GET", path)[2])
        assert found == {
            "name": "small",
            "versions": ["1"],
            "platform": "edgeinfer_edge",
            "inputs": [{"name": n, "datatype": "FP32", "shape": [-1, 5, 12, 12]} for n in ("left", "right")],
            "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 7]}],
        }
    for path in ("/v2/models/small/ready", "/v2/models/small/versions/1/ready"):
        assert json.loads(service.call("GET", path)[2]) == {"name": "small", "ready": True}
    status, headers, body = service.call("HEAD", "/v2/health/live")
    assert status == 200 and body == b"" and int(headers["content-length"]) > 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/small/versions/2", 404),
        ("GET", "/v2/models/small/infer", 405),
        ("POST", "/v2", 405),
        ("DELETE", "/v2/models/small", 405),
        ("POST", "/v2/models/none/infer", 404),
        ("POST", "/v2/repository/models/none/load", 404),
        ("POST", "/v2/repository/models/none/unload", 404),
        ("GET", "/v2/models/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/v2/models/../../../etc/passwd", 404),
        ("POST", "/v2/repository/models/..%2fsmall/load", 404),
        ("POST", "/v2/repository/models/.small/load", 404),
        ("POST", "/v2/repository/models/%00/load", 404),
        ("GET", "//v2/models/small", 404),
    ],
)
def test_paths_that_are_not_there(service: Running, method: str, path: str, status: int) -> None:
    found, headers, body = service.call(method, path, b"{}" if method == "POST" else None)
    assert found == status, body
    assert set(json.loads(body)) == {"error"} and headers["content-type"] == "application/json"
    assert (status == 405) == ("allow" in headers)


def test_inference_in_every_form(service: Running, expected: list[np.ndarray]) -> None:
    inputs = feed(3)
    for unix in (False, True):
        status, _, body = service.call("POST", "/v2/models/small/infer", json_request(inputs, id="seven"), unix=unix)
        found = json.loads(body)
        assert status == 200 and found["id"] == "seven" and found["model_name"] == "small" and found["model_version"] == "1"
        (output,) = found["outputs"]
        assert output["name"] == "scores" and output["shape"] == [3, 7] and output["datatype"] == "FP32"
        assert np.array_equal(np.array(output["data"], dtype=np.float32).reshape(3, 7), expected[0]), "to the bit"
    body, headers = binary_request(inputs)
    status, headers, body = service.call("POST", "/v2/models/small/versions/1/infer", body, headers, unix=True)
    assert status == 200 and headers["content-type"] == "application/octet-stream"
    assert np.array_equal(binary_outputs(headers, body)["scores"], expected[0])
    nested = json_request(inputs)
    for item in nested["inputs"]:
        item["data"] = np.reshape(item["data"], item["shape"]).tolist()
    nested["outputs"] = [{"name": "scores", "parameters": {"binary_data": True}}]
    status, headers, body = service.call("POST", "/v2/models/small/infer", nested)
    assert np.array_equal(binary_outputs(headers, body)["scores"], expected[0])
    mixed, _ = binary_request({"right": inputs["right"]})
    document = json.loads(mixed[: mixed.index(b'"parameters": {"binary_data_output"') - 2] + b"}")
    document["inputs"].insert(0, json_request({"left": inputs["left"]})["inputs"][0])
    head = json.dumps(document).encode()
    body = head + inputs["right"].tobytes()
    status, _, body = service.call("POST", "/v2/models/small/infer", body, {"Inference-Header-Content-Length": str(len(head))})
    assert status == 200 and np.array_equal(np.float32(json.loads(body)["outputs"][0]["data"]).reshape(3, 7), expected[0])


def _broken(change: Callable[[dict], object]) -> dict:
    document = json_request(feed(1))
    change(document)
    return document


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.pop("inputs"), "inputs: expected a list"),
        (lambda d: d["inputs"].pop(), "missing 'right'"),
        (lambda d: d["inputs"].append(d["inputs"][0]), "twice"),
        (lambda d: d["inputs"][0].update(name="wrong"), "unknown 'wrong'"),
        (lambda d: d["inputs"][0].update(datatype="FP64"), "datatype FP32, found 'FP64'"),
        (lambda d: d["inputs"][0].update(datatype="BYTES"), "found 'BYTES'"),
        (lambda d: d["inputs"][0].update(shape=[1, 5, 12, 13]), "expected shape"),
        (lambda d: d["inputs"][0].update(shape=[1, 5, 144]), "expected shape"),
        (lambda d: d["inputs"][0].update(shape=[0, 5, 12, 12]), "extents"),
        (lambda d: d["inputs"][0].update(shape=[-1, 5, 12, 12]), "extents"),
        (lambda d: d["inputs"][0].update(shape=[1.0, 5, 12, 12]), "shape"),
        (lambda d: d["inputs"][0].update(shape="1"), "shape"),
        (lambda d: d["inputs"][0].update(shape=[2, 5, 12, 12]), "values"),
        (lambda d: d["inputs"][0].update(data=[1, 2]), "fewer"),
        (lambda d: d["inputs"][0].update(data="AAAA"), "found text"),
        (lambda d: d["inputs"][0].update(data=["a"] * 720), "array with text"),
        (lambda d: d["inputs"][0].pop("data"), "found nothing"),
        (lambda d: d["inputs"][0].update(parameters={"binary_data_size": 2880}), "both data and"),
        (lambda d: d["inputs"][0].update(data=None, parameters={"binary_data_size": 2880}), "found 0"),
        (lambda d: d["inputs"][0].update(data=None, parameters={"binary_data_size": "2880"}), "binary_data_size"),
        (lambda d: d["inputs"][0].update(parameters=[]), "parameters"),
        (lambda d: d.update(outputs=[{"name": "none"}]), "no such output"),
        (lambda d: d.update(outputs=[{"name": "scores"}] * 2), "twice"),
        (lambda d: d.update(outputs=[{"name": "scores", "parameters": {"classification": 2}}]), "classification"),
        (lambda d: d.update(id=7), "id: expected text"),
        (lambda d: d.update(parameters={"timeout": -1}), "timeout"),
        (lambda d: d.update(parameters={"timeout": "soon"}), "timeout"),
        (lambda d: d.update(parameters={"binary_data_output": 1}), "binary_data_output"),
    ],
)
def test_wrong_requests_are_400_and_say_why(service: Running, change: Callable[[dict], object], says: str) -> None:
    status, _, body = service.call("POST", "/v2/models/small/infer", _broken(change))
    assert status == 400 and says in json.loads(body)["error"], body


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'"x"', b"nul"])
def test_bodies_that_are_no_request(service: Running, body: bytes) -> None:
    status, _, answer = service.call("POST", "/v2/models/small/infer", body)
    assert status == 400 and json.loads(answer)["error"]


@pytest.mark.parametrize("length", ["x", "-1", "99999999", "99999999999999999999999999", "", "1.0"])
def test_wrong_binary_headers(service: Running, length: str) -> None:
    body, headers = binary_request(feed(1))
    status, _, _ = service.call("POST", "/v2/models/small/infer", body, {**headers, "Inference-Header-Content-Length": length})
    assert status == 400
    status, _, answer = service.call("POST", "/v2/models/small/infer", body + b"x", headers)
    assert status == 400 and b"behind the JSON" in answer
    status, _, answer = service.call("POST", "/v2/models/small/infer", b"\0" * 2880, {"Inference-Header-Content-Length": "0"})
    assert status == 400 and b"one input" in answer


def test_more_than_is_admitted_is_413(service: Running) -> None:
    status, _, body = service.call("POST", "/v2/models/small/infer", *binary_request(feed(9)))
    assert status == 413 and b"at most" in body
    status, _, body = service.call("POST", "/v2/models/small/infer", *binary_request(feed(8)))
    assert status == 200
    status, _, body = service.call("POST", "/v2/models/small/infer", b'{"inputs":' + b" " * 600_000 + b"}")
    assert status == 413
    status, _, body = service.call("GET", "/v2/models/small", b"x" * 100_000)
    assert status == 413
    status, _, body = service.call("POST", "/v2/models/small/infer", b"{}", {"Content-Encoding": "gzip"})
    assert status == 415


def test_repository_and_statistics(service: Running, expected: list[np.ndarray]) -> None:
    index = [{"name": "small", "version": "1", "state": "READY", "reason": ""}]
    for body in (None, b"", {"ready": True}):
        assert json.loads(service.call("POST", "/v2/repository/index", body)[2]) == index
    assert service.call("POST", "/v2/repository/index", {"ready": 1})[0] == 400
    assert service.call("POST", "/v2/repository/models/small/unload", {"parameters": {"unload_dependents": False}})[0] == 200
    assert service.call("GET", "/v2/models/small/ready")[0] == 503
    status, headers, _ = service.call("POST", "/v2/models/small/infer", *binary_request(feed(1)))
    assert status == 503 and int(headers["retry-after"]) > 0
    assert json.loads(service.call("POST", "/v2/repository/index", {"ready": True})[2]) == []
    time.sleep(0.4)
    assert service.call("GET", "/v2/models/small/ready")[0] == 503, "it stays unloaded while the folder is looked at"
    assert service.call("POST", "/v2/repository/models/small/load")[0] == 200
    before = json.loads(service.call("GET", "/v2/models/small/stats")[2])["model_stats"][0]
    assert np.array_equal(service.infer(feed(3))["scores"], expected[0])
    after = json.loads(service.call("GET", "/v2/models/stats")[2])["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 3 and after["execution_count"] - before["execution_count"] == 1
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 1
    assert after["inference_stats"]["compute_infer"]["ns"] > before["inference_stats"]["compute_infer"]["ns"]
    assert any(batch["batch_size"] == 3 for batch in after["batch_stats"]) and after["memory_usage"][0]["byte_size"] > 0


def test_metrics_page(service: Running) -> None:
    service.infer(feed(1))
    status, headers, body = service.call("GET", "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    values = {}
    for line in body.decode().splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            assert name not in values
            values[name] = float(value)
    assert values["edgeinfer_memory_limit_bytes"] == 96 << 20
    assert 10 << 20 < values["process_resident_memory_bytes"] <= values["edgeinfer_resident_peak_bytes"] <= 96 << 20
    assert values["edgeinfer_queue_requests"] == 0 and values['edgeinfer_model_ready{model="small"}'] == 1
    assert values['edgeinfer_inference_requests_total{model="small",outcome="success"}'] >= 1
    assert values['edgeinfer_request_duration_seconds_count{model="small"}'] >= 1
    assert values['edgeinfer_compute_seconds_total{model="small"}'] > 0
    assert values['edgeinfer_decode_seconds_total{model="small"}'] > 0
    assert values['edgeinfer_predicted_peak_bytes{model="small"}'] > 0
    assert values["edgeinfer_connections"] >= 1


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_over_both_sockets(service: Running, tmp_path: Path, expected: list[np.ndarray]) -> None:
    (tmp_path / "request.json").write_text(json.dumps(json_request(feed(3))))
    for where in (["--unix-socket", str(service.path), "http://localhost"], [f"http://127.0.0.1:{service.port}"]):
        command = [
            "curl",
            "-sS",
            "--fail-with-body",
            *where[:-1],
            where[-1] + "/v2/models/small/infer",
            "-d",
            f"@{tmp_path / 'request.json'}",
        ]
        done = subprocess.run(command, capture_output=True, check=True, timeout=60)
        assert np.array_equal(np.float32(json.loads(done.stdout)["outputs"][0]["data"]).reshape(3, 7), expected[0])


def test_triton_client(service: Running, expected: list[np.ndarray]) -> None:
    client_module = pytest.importorskip(
        "tritonclient.http", reason="tritonclient[http] is not installed (benchmarks/service.py needs it too)"
    )
    client = client_module.InferenceServerClient(f"127.0.0.1:{service.port}")
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("small", "1")
    assert client.get_server_metadata()["name"] == "edgeinfer"
    assert client.get_model_repository_index()[0]["state"] == "READY"
    assert client.get_inference_statistics("small")["model_stats"][0]["name"] == "small"
    for binary in (True, False):
        inputs = []
        for name, array in feed(3).items():
            inputs.append(client_module.InferInput(name, list(array.shape), "FP32"))
            inputs[-1].set_data_from_numpy(array, binary_data=binary)
        for outputs in (None, [client_module.InferRequestedOutput("scores", binary_data=binary)]):
            result = client.infer("small", inputs, outputs=outputs, request_id="id", timeout=60_000_000)
            assert np.array_equal(result.as_numpy("scores"), expected[0]) and result.get_response()["id"] == "id"
    with pytest.raises(client_module.InferenceServerException, match="no such model"):
        client.infer("none", inputs)
    client.unload_model("small")
    assert not client.is_model_ready("small")
    client.load_model("small")
    assert client.is_model_ready("small")
    client.close()


# ---- batches, deadlines, queue, ceiling


def test_requests_are_gathered_and_answers_do_not_change(start: Callable[..., Running], expected: list[np.ndarray]) -> None:
    service = start(model_settings={"small": {"batch_delay": "300ms", "max_batch": 6}})
    whole = feed(3)
    answers: list[np.ndarray | None] = [None] * 3

    def ask(row: int) -> None:
        answers[row] = service.infer({name: a[row : row + 1] for name, a in whole.items()})["scores"]

    threads = [threading.Thread(target=ask, args=(row,)) for row in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.array_equal(np.concatenate(answers), expected[0])
    stats = json.loads(service.call("GET", "/v2/models/small/stats")[2])["model_stats"][0]
    assert stats["inference_count"] == 3 and stats["execution_count"] < 3, stats["batch_stats"]


def test_deadlines_and_a_full_queue(start: Callable[..., Running]) -> None:
    """A long wait for company holds the worker: what comes meanwhile waits, until the queue is full or its deadline passes."""
    service = start(queue_size=2, model_settings={"small": {"batch_delay": "1500ms", "max_batch": 2}})
    codes: list[tuple[float, int, dict]] = []

    def ask(rows: int, **parameters: object) -> None:
        began = time.monotonic()
        status, headers, _ = service.call("POST", "/v2/models/small/infer", *binary_request(feed(rows), parameters=parameters))
        codes.append((time.monotonic() - began, status, headers))

    first = threading.Thread(target=ask, args=(1,))
    first.start()
    time.sleep(0.3)
    late = threading.Thread(target=ask, args=(2,), kwargs={"timeout": 200_000})  # two rows do not fit beside the first
    late.start()
    late.join()
    spent, status, _ = codes.pop()
    assert status == 504 and 0.2 <= spent < 1.1, "the deadline is kept while others run"
    others = [threading.Thread(target=ask, args=(2,)) for _ in range(4)]
    for thread in others:
        thread.start()
    for thread in (first, *others):
        thread.join()
    assert sorted(status for _, status, _ in codes) == [200, 200, 200, 429, 429]
    assert all(int(headers["retry-after"]) > 0 for _, status, headers in codes if status == 429)
    assert service.call("POST", "/v2/models/small/infer", *binary_request(feed(1), parameters={"timeout": "5s"}))[0] == 200


def test_a_model_that_does_not_fit_is_503_and_says_the_ceiling(start: Callable[..., Running], containers: list[Path]) -> None:
    service = start(memory_limit="24MiB", request_memory="1MiB")
    status, headers, body = service.call("POST", "/v2/models/small/infer", *binary_request(feed(1)))
    assert status == 503 and b"smallest ceiling" in body and "retry-after" in headers
    assert service.call("GET", "/v2/health/ready")[0] == 503 and service.call("GET", "/v2/health/live")[0] == 200
    service.settings["memory_limit"] = "96MiB"
    service.write_config()
    service.process.send_signal(signal.SIGHUP)
    service.wait_for(lambda: service.call("GET", "/v2/health/ready")[0] == 200, "the higher ceiling to help")
    service.infer(feed(1))


def test_requests_that_need_more_memory_than_there_is(start: Callable[..., Running]) -> None:
    service = start(memory_limit="96MiB", request_memory="64KiB", spill=True)
    status, _, body = service.call("POST", "/v2/models/small/infer", json_request(feed(8)))
    assert status == 413 and b"request_memory" in body
    service.infer(feed(8))  # binary tensors wait in a file


# ---- replacing, reloading, stopping


def test_a_replaced_file_is_served_and_a_damaged_one_is_not(
    start: Callable[..., Running], containers: list[Path], expected: list[np.ndarray]
) -> None:
    for state in (None, True):
        service = start(state=state)
        place = service.models / "small.edge"
        assert np.array_equal(service.infer(feed(3))["scores"], expected[0])
        damaged = bytearray(containers[1].read_bytes())
        damaged[len(damaged) // 2] ^= 0x40
        place.with_name("beside").write_bytes(damaged)
        os.replace(place.with_name("beside"), place)
        service.wait_for(lambda s=service: s.said("the new file is not used"), "the damage to be noticed")
        assert np.array_equal(service.infer(feed(3))["scores"], expected[0])
        (entry,) = json.loads(service.call("POST", "/v2/repository/index")[2])
        assert entry["state"] == "READY" and "not used" in entry["reason"]
        assert service.call("POST", "/v2/repository/models/small/load")[0] == 400
        if state:
            assert service.stop() == 0
            service.start()
            assert np.array_equal(service.infer(feed(3))["scores"], expected[0]), "the last good copy serves after a restart"
        place.write_bytes(containers[1].read_bytes())
        service.wait_for(lambda s=service: np.array_equal(s.infer(feed(3))["scores"], expected[1]), "the new model")
        assert service.call("POST", "/v2/repository/index")[2].count(b'"reason":""') == 1
        if state:
            assert len([p for p in (service.folder / "state").iterdir()]) == 1
        (service.models / "other.edge").write_bytes(containers[0].read_bytes())
        service.wait_for(lambda s=service: s.call("GET", "/v2/models/other/ready")[0] == 200, "a new model")
        (service.models / "other.edge").unlink()
        service.wait_for(lambda s=service: s.call("GET", "/v2/models/other/ready")[0] == 404, "it to be gone")
        assert service.stop() == 0


def test_requests_during_reloads_all_succeed(start: Callable[..., Running], containers: list[Path], expected: list[np.ndarray]) -> None:
    service = start(state=True, poll_interval=0.05, memory_limit="96MiB")
    ends, wrong, count = threading.Event(), [], [0, 0]

    def ask(place: int) -> None:
        while not ends.is_set():
            try:
                found = service.infer(feed(3))["scores"]
                count[place] += 1
                if not any(np.array_equal(found, each) for each in expected):
                    wrong.append(found)
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for round_ in range(6):
        beside = service.models / "beside"
        beside.write_bytes(containers[round_ % 2].read_bytes())
        os.replace(beside, service.models / "small.edge")
        if round_ % 3 == 0:
            service.process.send_signal(signal.SIGHUP)
        time.sleep(0.4)
    ends.set()
    for thread in threads:
        thread.join()
    assert not wrong and min(count) > 0, wrong[:1]
    assert service.peak_rss() <= 96 << 20


def test_hangup_reads_the_configuration_again(start: Callable[..., Running]) -> None:
    service = start()
    service.settings["model_settings"] = {"small": {"max_batch": 2}}
    service.write_config()
    service.process.send_signal(signal.SIGHUP)
    service.wait_for(lambda: service.call("POST", "/v2/models/small/infer", *binary_request(feed(3)))[0] == 413, "the smaller batch")
    (service.folder / "serve.yaml").write_text("models: [")
    service.process.send_signal(signal.SIGHUP)
    service.wait_for(lambda: service.said("the configuration is kept"), "the complaint")
    service.infer(feed(2))


def test_termination_finishes_what_is_in_flight(start: Callable[..., Running]) -> None:
    service = start(model_settings={"small": {"batch_delay": "700ms"}})
    assert stat.S_ISSOCK(service.path.stat().st_mode) and stat.S_IMODE(service.path.stat().st_mode) == 0o660
    codes: list[int] = []
    asking = threading.Thread(target=lambda: codes.append(service.call("POST", "/v2/models/small/infer", *binary_request(feed(1)))[0]))
    asking.start()
    time.sleep(0.25)
    service.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    with pytest.raises(OSError):
        service.call("GET", "/v2")
    asking.join()
    assert codes == [200] and service.process.wait(20) == 0
    assert not service.path.exists()


def test_a_socket_left_behind_is_replaced_and_a_live_one_is_not(start: Callable[..., Running]) -> None:
    service = start()
    service.stop(signal.SIGKILL)
    assert service.path.exists()
    service.start()
    second = subprocess.run(
        service.process.args, capture_output=True, text=True, timeout=60, cwd=service.folder, env={**os.environ, **_path()}
    )
    assert second.returncode == 2 and "another process listens" in second.stderr and second.stderr.count("\n") == 1
    assert service.call("GET", "/v2", unix=True)[0] == 200


def _path() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def test_systemd_is_told(start: Callable[..., Running], tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        service = start(environment={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "800000"})

        def hear(wanted: bytes) -> bytes:
            while True:
                got = manager.recv(4096)
                if wanted in got:
                    return got

        assert b"1 of 1 models ready" in hear(b"READY=1")
        for _ in range(3):
            hear(b"WATCHDOG=1")
        service.process.send_signal(signal.SIGHUP)
        assert b"MONOTONIC_USEC=" in hear(b"RELOADING=1")
        hear(b"READY=1")
        service.process.send_signal(signal.SIGTERM)
        hear(b"STOPPING=1")
        assert service.process.wait(20) == 0


# ---- the token


def test_a_token_is_wanted_everywhere(start: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("correct-horse\n")
    service = start(token_file=str(tmp_path / "token"))
    for path in ("/v2", "/metrics", "/v2/health/live", "/v2/nothing"):
        for headers in ({}, {"Authorization": "Bearer wrong-horse"}, {"Authorization": "Basic correct-horse"}, {"Authorization": "Bearer"}):
            status, answered, _ = service.call("GET", path, headers=headers)
            assert status == 401 and answered["www-authenticate"].startswith("Bearer")
    body, headers = binary_request(feed(1))
    assert service.call("POST", "/v2/models/small/infer", body, headers)[0] == 401
    right = {"Authorization": "Bearer correct-horse"}
    assert service.call("GET", "/v2", headers=right)[0] == 200
    assert service.call("POST", "/v2/models/small/infer", body, {**headers, **right})[0] == 200
    (tmp_path / "token").write_text("another-horse")
    service.process.send_signal(signal.SIGHUP)
    service.wait_for(lambda: service.call("GET", "/v2", headers=right)[0] == 401, "the new token")
    assert not service.said("horse"), "a token is never logged"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"listen": "0.0.0.0:0"}, "token_file"),
        ({"listen": "127.0.0.1:0", "models": "nowhere"}, "no such folder"),
        ({"listen": "127.0.0.1:0", "token_file": "nowhere"}, "token_file"),
        ({"listen": "127.0.0.1:0", "state": "nowhere"}, "state"),
        ({"listen": "127.0.0.1:0", "memory_limit": "4MiB"}, "request_memory"),
        ({"listen": "127.0.0.1:0", "surprise": 1}, "unknown key"),
    ],
)
def test_configurations_that_cannot_be_served(tmp_path: Path, settings: dict, says: str) -> None:
    import sys

    (tmp_path / "models").mkdir()
    (tmp_path / "serve.yaml").write_text(json.dumps({"models": "models", **settings}))
    command = [sys.executable, "-m", "edgeinfer.cli", "serve", "--config", str(tmp_path / "serve.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **_path()})
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1
