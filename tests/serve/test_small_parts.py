"""Configuration, systemd's side, metrics, accounts and bodies."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edgeinfer.errors import UsageError
from edgeinfer.serve import config, systemd
from edgeinfer.serve.memory import ALIGNMENT, REQUEST_BYTES, Account, Body, Hold
from edgeinfer.serve.metrics import Metrics
from edgeinfer.serve.protocol import Refusal

# ---- configuration


def test_defaults_and_every_key(tmp_path: Path) -> None:
    made = config.parse({"models": "m"}, str(tmp_path))
    assert made.models == str(tmp_path / "m") and str(made.listen[0]) == config.DEFAULT_LISTEN and made.memory_limit is None
    made = config.parse(
        {
            "models": "/m",
            "listen": ["127.0.0.1:80", "[::1]:81", "unix:/s"],
            "memory_limit": "64MiB",
            "threads": 2,
            "model_settings": {"a": {"max_batch": 4, "batch_delay": "2ms", "symbols": {"S": 8}, "timeout": "1s"}, "*": {"load": False}},
            "socket_mode": "0600",
        }
    )
    assert [str(a) for a in made.listen] == ["127.0.0.1:80", "[::1]:81", "unix:/s"]
    assert made.settings("a").batch_delay == 0.002 and made.settings("a").timeout == 1 and not made.settings("other").load
    assert made.request_bytes == 8 << 20 and made.socket_mode == 0o600


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (None, "mapping"),
        ({}, "models"),
        ({"models": "m", "memory": 1}, "unknown key 'memory'"),
        ({"models": "m", "memory_limit": "lots"}, "memory_limit"),
        ({"models": "m", "threads": 0}, "threads"),
        ({"models": "m", "threads": True}, "threads"),
        ({"models": "m", "listen": "8000"}, "listen"),
        ({"models": "m", "listen": "example.org:80"}, "IP address"),
        ({"models": "m", "listen": "unix:relative"}, "absolute"),
        ({"models": "m", "listen": "127.0.0.1:99999"}, "listen"),
        ({"models": "m", "listen": "0.0.0.0:80"}, "token_file"),
        ({"models": "m", "listen": ["127.0.0.1:80", "[::]:80"]}, "token_file"),
        ({"models": "m", "listen": "192.168.1.2:80"}, "token_file"),
        ({"models": "m", "model_settings": {"a": {"batch": 1}}}, "model_settings.a.unknown key 'batch'"),
        ({"models": "m", "model_settings": {"../a": {}}}, "model_settings"),
        ({"models": "m", "model_settings": {"a": {"symbols": {"S": 0}}}}, "sizes by name"),
    ],
)
def test_wrong_configurations_are_named(document: object, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        config.parse(document)


def test_loopback_is_what_only_this_machine_reaches() -> None:
    for inside in ("127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/x"):
        assert config.parse_address(inside).is_loopback
    for outside in ("0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:127.0.0.1]:1"):
        assert not config.parse_address(outside).is_loopback


def test_token_files(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"correct-horse\n")
    assert config.read_token(str(path)) == b"correct-horse"
    for wrong in (b"", b"short", b"two words here", b"x" * 5000, "größer-als".encode()):
        path.write_bytes(wrong)
        with pytest.raises(UsageError, match="token_file") as caught:
            config.read_token(str(path))
        assert wrong.decode("latin-1") not in str(caught.value) or not wrong
    with pytest.raises(UsageError, match="cannot be read"):
        config.read_token(str(tmp_path / "none"))


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    for text in ("{", "a: b: c", "[" * 3000, "\x00"):
        path.write_text(text)
        with pytest.raises(UsageError, match=str(path)):
            config.load(str(path))
    with pytest.raises(UsageError, match="cannot be read"):
        config.load(str(tmp_path))


# ---- systemd


@pytest.mark.parametrize("abstract", [False, True])
def test_notifier_speaks_sd_notify(tmp_path: Path, abstract: bool) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = f"@edgeinfer-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
        manager.bind("\0" + address[1:] if abstract else address)
        manager.settimeout(5)
        notifier = systemd.Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())})
        assert notifier.watchdog == 4.0
        notifier.ready("fine")
        assert manager.recv(1000) == b"READY=1\nSTATUS=fine"
        notifier.ping()
        assert manager.recv(1000) == b"WATCHDOG=1"
        notifier.reloading()
        lines = manager.recv(1000).split(b"\n")
        assert lines[0] == b"RELOADING=1" and lines[1].startswith(b"MONOTONIC_USEC=")
        notifier.stopping()
        assert manager.recv(1000).startswith(b"STOPPING=1\n")
    assert not notifier.send("READY=1")  # nobody listens any more


def test_no_systemd_is_no_error() -> None:
    notifier = systemd.Notifier({})
    assert not notifier.send("READY=1") and notifier.watchdog is None
    assert systemd.Notifier({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}).watchdog is None, "another process is watched"
    assert systemd.activated_sockets({"LISTEN_FDS": "1", "LISTEN_PID": "1"}) == []
    assert systemd.activated_sockets({}) == []


def test_activated_sockets(tmp_path: Path) -> None:
    """As systemd does it: file descriptors from 3 on, and variables that name this process."""
    program = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
from edgeinfer.serve.systemd import activated_sockets
sockets = activated_sockets()
print([s.getsockname() for s in sockets], os.get_inheritable(3), "LISTEN_FDS" in os.environ)
"""
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wrong:
        one.bind(str(tmp_path / "a"))
        one.listen()
        wrong.bind(str(tmp_path / "b"))

        def place() -> None:
            first, second = os.dup(one.fileno()), os.dup(wrong.fileno())
            os.dup2(first, 3)
            os.dup2(second, 4)

        done = subprocess.run(
            [sys.executable, "-c", program],
            preexec_fn=place,
            close_fds=False,
            env={**os.environ, "LISTEN_FDS": "2", "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.strip() == f"{[str(tmp_path / 'a')]} False False"


# ---- metrics


def test_exposition_format() -> None:
    metrics = Metrics()
    counter = metrics.counter("a_total", "About a.", ("model",))
    metrics.gauge("b", "About b.", read=lambda: [((), 1.5)])
    metrics.gauge("silent", "Not reported.", read=lambda: [])
    histogram = metrics.histogram("c_seconds", "About c.", ("model",))
    counter.add(2, 'quo"te\\')
    for value in (0.0005, 0.003, 99.0):
        histogram.observe(value, "m")
    lines = metrics.text().splitlines()
    assert lines[:3] == ["# HELP a_total About a.", "# TYPE a_total counter", 'a_total{model="quo\\"te\\\\"} 2']
    assert "b 1.5" in lines and not any("silent" in line for line in lines)
    assert 'c_seconds_bucket{model="m",le="0.001"} 1' in lines and 'c_seconds_bucket{model="m",le="0.005"} 2' in lines
    assert 'c_seconds_bucket{model="m",le="30"} 2' in lines and 'c_seconds_bucket{model="m",le="+Inf"} 3' in lines
    assert 'c_seconds_count{model="m"} 3' in lines and metrics.text().endswith("\n")


# ---- memory


def test_an_account_never_gives_more_than_it_has() -> None:
    account = Account(100)
    hold = Hold(account)
    hold.take(60)
    with pytest.raises(Refusal) as caught:
        Hold(account).take(50)
    assert caught.value.status == 503 and caught.value.retry_after
    with pytest.raises(Refusal) as caught:
        hold.take(50)
    assert caught.value.status == 413, "no waiting will help"
    hold.give(10)
    hold.give()
    hold.give()
    assert account.used == 0 and account.peak == 60


@pytest.mark.parametrize(("room", "in_memory"), [(2 * REQUEST_BYTES, True), (REQUEST_BYTES + 10, False)])
def test_bodies_in_memory_and_in_files_read_alike(tmp_path: Path, room: int, in_memory: bool) -> None:
    memory, disk = Account(room), Account(10_000)
    body = Body(memory, disk, str(tmp_path), 1000, header_length=37)
    content = bytes(i % 251 for i in range(1000))
    for first in range(0, 1000, 77):
        body.append(content[first : first + 77])
    assert body.in_memory == in_memory and len(body) == 1000
    target = bytearray(500)
    body.read_into(memoryview(target), 37)
    assert target == content[37:537]
    view = body.view(37, 537)
    assert (view == target) if in_memory else view is None
    if in_memory:
        import numpy as np

        assert np.frombuffer(body.view(37, 101), dtype=np.uint8).ctypes.data % 16 == ALIGNMENT % 16, "tensors begin aligned"
    else:
        assert disk.used == 1000 and not list(tmp_path.iterdir()), "a spill file has no name"
    body.close()
    body.close()
    assert memory.used == disk.used == 0
    with pytest.raises(Refusal, match="too many"):
        Body(Account(REQUEST_BYTES - 1), disk, str(tmp_path), 1)
    with pytest.raises(Refusal):
        body.read_into(memoryview(target), 0)


def test_chunked_bodies_move_to_a_file_when_they_grow(tmp_path: Path) -> None:
    memory, disk = Account(1 << 20), Account(1 << 20)
    body = Body(memory, disk, str(tmp_path), None)
    content = os.urandom(100_000)
    body.append(content[:1000])
    assert body.in_memory
    for first in range(1000, 100_000, 9000):
        body.append(content[first : first + 9000])
    assert not body.in_memory and memory.used == REQUEST_BYTES and disk.used == 100_000
    target = bytearray(100_000)
    body.read_into(memoryview(target), 0)
    assert bytes(target) == content
    disk.limit = 100_001
    with pytest.raises(Refusal, match="waiting"):
        body.append(b"xx")
    body.close()
    assert disk.used == 0
