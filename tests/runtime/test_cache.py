"""Layer caches at run time: the same bits for any batch, rows that stay get the network's own, files that do not fit are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_classifiers as task

import edgeinfer as ei
from edgeinfer.container import Reader, Writer
from edgeinfer.runtime import cache as module
from edgeinfer.runtime.cache import _compact
from edgeinfer.tune import cache as tune

NOISE = 1.2


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(container, caches)."""
    folder = tmp_path_factory.mktemp("caches")
    (container,) = task.containers(folder, (32,))
    with pytest.MonkeyPatch.context() as patch, ei.InferenceSession(container, threads=1, batch=16) as session:
        patch.setattr(tune, "LOOK_SECONDS", 1e-6)  # this network takes no longer than a look-up
        patch.setattr(tune, "LEAST_STEPS", 500)
        x, _ = task.rows(1200, 1, NOISE)
        made = tune.fit(session, {"image": x}, promise=0.05, most_bytes=60000, augment=1, places=3)
        assert made.candidates and made.recent is not None
        tune.write(made, session, folder / "m.caches")
    return container, folder / "m.caches"


def answers(container: Path, x: np.ndarray, **options: Any) -> tuple[np.ndarray, np.ndarray | None]:
    with ei.InferenceSession(container, threads=1, **options) as session:
        (out,) = session.run(None, {"image": x})
        return out, session.exits


def without_recent(caches: Path, target: Path) -> Path:
    return rewritten(caches, target, lambda value: value.update(recent=None))


def rewritten(caches: Path, target: Path, change: Any) -> Path:
    """The file with other metadata, whole and with right checksums."""
    with Reader(caches) as reader:
        value = json.loads(json.dumps(reader.metadata["caches"]))
        change(value)
        with Writer(target, reader.graph, {"caches": value}) as writer:
            for name, entry in reader.entries.items():
                if entry.is_plain:
                    writer.add_plain(name, reader.plain(name))
                else:
                    parts = {p: np.frombuffer(reader.read(entry)[a : a + n], np.uint8) for p, (a, n) in entry.parts.items()}
                    described = {k: getattr(entry, k) for k in ("rows", "k", "groups", "k_chunk", "quantizer", "options", "coder")}
                    from edgeinfer.coders.tensor import Encoded

                    encoded = Encoded(**described, max_error=entry.max_error, planes=entry.planes, parts=parts, quantized=None)
                    writer.add_coded(name, entry.shape, entry.dtype, encoded)
    return target


def test_rows_leave_and_the_others_get_the_networks_bits(fitted: tuple[Path, Path]) -> None:
    x, _ = task.rows(600, 50, NOISE)
    plain, none = answers(fitted[0], x, batch=16)
    cached, exits = answers(fitted[0], x, batch=16, caches=fitted[1], cache_audit=0.0)
    assert none is None and exits is not None
    np.testing.assert_array_equal(cached[exits < 0], plain[exits < 0])
    assert (exits >= 0).mean() > 0.3
    assert (cached.argmax(axis=1) == plain.argmax(axis=1)).mean() > 0.95


@pytest.mark.parametrize("batch", [2, 3, 7, 16, 40])
def test_any_batch_gives_the_same_bits(fitted: tuple[Path, Path], tmp_path: Path, batch: int) -> None:
    """Rows in a batch leave and are compacted; alone they leave or stay. Recent answers depend on what came before, so not with them."""
    caches = without_recent(fitted[1], tmp_path / "m.caches")
    x, _ = task.rows(80, 51, NOISE)
    together, exits = answers(fitted[0], x, batch=batch, caches=caches, cache_audit=0.0)
    with ei.InferenceSession(fitted[0], threads=2, caches=caches, cache_audit=0.0) as session:
        for row in range(len(x)):
            (alone,) = session.run(None, {"image": x[row : row + 1]})
            np.testing.assert_array_equal(alone[0], together[row])
            assert session.exits is not None and exits is not None and session.exits[0] == exits[row]


def test_audited_rows_run_to_the_end(fitted: tuple[Path, Path]) -> None:
    x, _ = task.rows(100, 52, NOISE)
    plain, _ = answers(fitted[0], x, batch=16)
    cached, exits = answers(fitted[0], x, batch=16, caches=fitted[1], cache_audit=1.0)
    np.testing.assert_array_equal(cached, plain)
    assert exits is not None and set(exits) == {-1}


def test_layers_that_no_row_needs_do_not_run(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    def eager(value: dict[str, Any]) -> None:
        value["recent"] = None
        for cache in value["caches"]:
            cache["threshold"] = 0.0

    caches = rewritten(fitted[1], tmp_path / "m.caches", eager)
    layers: list[str] = []
    with ei.InferenceSession(fitted[0], threads=1, batch=4, caches=caches, cache_audit=0.0) as session:
        session.run(None, {"image": task.rows(4, 53)[0]}, on_layer=lambda name, *_: layers.append(name))
        assert session.plan is not None and set(session.exits or ()) == {0} if session.exits is None else set(session.exits) == {0}
        assert 0 < len(layers) < len(session.plan.nodes)


def test_scenes_that_come_again_are_remembered(fitted: tuple[Path, Path]) -> None:
    x, _ = task.rows(300, 54, NOISE)
    fresh, exits = answers(fitted[0], x, caches=fitted[1], cache_audit=0.0)
    assert exits is not None
    hard = x[exits < 0][:30]
    recent = max(exits.max(), 0) + 1
    with ei.InferenceSession(fitted[0], threads=1, caches=fitted[1], cache_audit=0.0) as session:
        recent = len(session.cache_report()["caches"])  # type: ignore[index]
        for row in hard:
            session.run(None, {"image": row[None]})
        (again,) = session.run(None, {"image": hard})
        assert session.exits is not None and (session.exits == recent).mean() > 0.9
        report = session.cache_report()
    plain, _ = answers(fitted[0], hard)
    assert (again.argmax(axis=1) == plain.argmax(axis=1)).mean() > 0.9
    assert report is not None and report["recent"]["kept"] <= 64


def test_exits_and_report_add_up(fitted: tuple[Path, Path]) -> None:
    x, _ = task.rows(128, 55, NOISE)
    with ei.InferenceSession(fitted[0], batch=16, caches=fitted[1], cache_audit=0.05) as session:
        session.run(None, {"image": x})
        report, exits = session.cache_report(), session.exits
    assert report is not None and exits is not None and report["rows"] == 128
    for number, cache in enumerate(report["caches"]):
        assert cache["answered"] == pytest.approx((exits == number).mean())


@pytest.mark.parametrize("shift", [-3000, -40, 0, 24, 2000])
def test_rows_move_without_a_second_buffer(shift: int) -> None:
    room = np.zeros(8000, np.float32)
    start = 4000 if shift < 0 else 1000
    rows = room[start : start + 10 * 32].reshape(10, 32)
    rows[...] = np.arange(320).reshape(10, 32)
    expected = rows[[1, 4, 5, 9]].copy()
    to = room[start + shift : start + shift + 6 * 32].reshape(6, 32)
    _compact(rows, to, np.array([1, 4, 5, 9]))
    np.testing.assert_array_equal(to[:4], expected)
    np.testing.assert_array_equal(to[4:], expected[[0, 0]])


def test_under_a_ceiling(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", task.rows(200, 56, NOISE)[0])
    program = f"""
import sys; sys.path[:0] = {sys.path!r}
import numpy as np
import edgeinfer as ei
x = np.load({str(tmp_path / "x.npy")!r})
options = dict(threads=1, batch=32, caches={str(fitted[1])!r})
try:
    ei.InferenceSession({str(fitted[0])!r}, memory_limit="8MiB", **options)
    raise SystemExit("accepted")
except ei.PlanError as error:
    smallest = error.smallest_ceiling
with ei.InferenceSession({str(fitted[0])!r}, memory_limit=smallest, **options) as session:
    for _ in range(3):
        session.run(None, {{"image": x}})
    report = session.memory_report()
assert report["peak_rss"] <= smallest, (report, smallest)
assert report["peak_rss"] <= report["predicted_peak_rss"], report
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_caches_of_another_network(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    (other,) = task.containers(tmp_path, (16,))
    with pytest.raises(ei.ContainerError, match="fitted to the container with SHA-256 .*tune cache"):
        ei.InferenceSession(other, caches=fitted[1])
    with pytest.raises(ei.ContainerError, match="not a caches file"):
        ei.InferenceSession(other, caches=other)
    with pytest.raises(ei.ContainerError, match="no such file"):
        ei.InferenceSession(other, caches=tmp_path / "gone.caches")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(version=9), "expected version 1, found 9"),
        (lambda v: v.pop("promise"), "'promise' is missing"),
        (lambda v: v["caches"][0].update(boundary="nowhere"), "nowhere"),
        (lambda v: v["caches"][0].update(selector=[1.0]), "selector weights"),
        (lambda v: v["caches"][0].update(threshold=1.5), "threshold in 0..1"),
        (lambda v: v["caches"][0].update(kind="oracle"), "oracle"),
        (lambda v: v.update(scores="votes"), "logits or probabilities"),
        (lambda v: v["recent"].update(room=0), "room for 1 to 4096"),
    ],
)
def test_files_that_contradict_themselves(fitted: tuple[Path, Path], tmp_path: Path, change: Any, message: str) -> None:
    path = rewritten(fitted[1], tmp_path / "bad.caches", change)
    with pytest.raises(ei.ContainerError, match=message) as raised:
        ei.InferenceSession(fitted[0], caches=path)
    assert "bad.caches" in str(raised.value) and "\n" not in str(raised.value)


def test_damaged_and_truncated_files(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    whole = fitted[1].read_bytes()
    path = tmp_path / "bad.caches"
    generator = np.random.default_rng(0)
    for end in generator.integers(0, len(whole), 20):
        path.write_bytes(whole[: int(end)])
        with pytest.raises(ei.ContainerError):
            ei.InferenceSession(fitted[0], caches=path)
    for at in generator.integers(0, len(whole), 40):
        damaged = bytearray(whole)
        damaged[int(at)] ^= 1 << int(at % 8)
        path.write_bytes(bytes(damaged))
        with pytest.raises(ei.ContainerError):
            ei.InferenceSession(fitted[0], caches=path)


def test_bad_options(fitted: tuple[Path, Path]) -> None:
    with pytest.raises(ei.UsageError, match="cache_audit"):
        ei.InferenceSession(fitted[0], caches=fitted[1], cache_audit=1.5)


def test_the_state_file_is_kept_by_close(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    x, _ = task.rows(50, 57, NOISE)
    for runs in (1, 2):
        with ei.InferenceSession(fitted[0], caches=fitted[1], cache_audit=0.5, cache_state=state) as session:
            session.run(None, {"image": x})
        assert json.loads(state.read_text())["state"]["counts"][0] == 50 * runs


def test_sizes_of_the_batch_waste_at_most_a_third() -> None:
    for rows in range(1, 2000):
        size = next(n for n in module.SIZES if n >= rows)
        assert rows <= size <= rows * 1.5
