"""Services for tests: one that a module shares, and one for each test that stops, kills or breaks it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("waitress")
onnx = pytest.importorskip("onnx")
from serving import Running  # noqa: E402
from small import small_model  # noqa: E402


@pytest.fixture(scope="session")
def containers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two containers of the same signature with different answers."""
    import edgeinfer as ei

    folder = tmp_path_factory.mktemp("containers")
    onnx.save(small_model(), folder / "small.onnx")
    for name, bits in (("first", 8), ("second", 3)):
        ei.compress(str(folder / "small.onnx"), str(folder / f"{name}.edge"), quantizer="uniform", bits=bits)
    return [folder / "first.edge", folder / "second.edge"]


@pytest.fixture
def start(tmp_path: Path, containers: list[Path]) -> Iterator[Callable[..., Running]]:
    """Starts services that are ended with the test."""
    started: list[Running] = []

    def make(environment: dict[str, str] | None = None, **settings: Any) -> Running:
        (tmp_path / "models").mkdir(exist_ok=True)
        (tmp_path / "models" / "small.edge").write_bytes(containers[0].read_bytes())
        for key in ("state", "spill"):
            if settings.get(key) is True:
                (tmp_path / key).mkdir(exist_ok=True)
                settings[key] = str(tmp_path / key)
        started.append(Running(tmp_path, settings, environment or {}))
        return started[-1]

    yield make
    for each in started:
        each.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, containers: list[Path]) -> Iterator[Running]:
    """One service for all tests of a module that leave it as they found it."""
    folder = tmp_path_factory.mktemp("service")
    for key in ("models", "state", "spill"):
        (folder / key).mkdir()
    (folder / "models" / "small.edge").write_bytes(containers[0].read_bytes())
    limit = {"memory_limit": "96MiB", "request_memory": "8MiB"}
    running = Running(folder, {"state": str(folder / "state"), "spill": str(folder / "spill"), **limit}, {})
    yield running
    assert running.process.poll() is None, "".join(running.log)
    assert not running.said("internal error") and not running.said("Traceback"), "".join(running.log)
    assert running.peak_rss() <= 96 << 20
    assert running.stop() == 0
