"""Ensembles at run time: who is asked, the dial, budgets, the controller, files that do not fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_classifiers as task
import yaml

import edgeinfer as ei
from edgeinfer.runtime import ensemble as module
from edgeinfer.runtime.ensemble import EnsembleFile, Member, Setting
from edgeinfer.runtime.stop import margins, softmax


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return task.containers(tmp_path_factory.mktemp("members"))


def write(path: Path, members: list[Path], thresholds: tuple[float, ...] = (0.8, 0.6)) -> Path:
    from edgeinfer.container import Reader

    made = []
    for k, member in enumerate(members):
        with Reader(member) as reader:
            made.append(Member(str(member), reader.digest.hex(), 1.0 + k))
    steps = len(members) - 1
    curve = (
        Setting(0.0, (0.0,) * steps, 1.0, 1.0, 0.2, 0.3),
        Setting(0.5, thresholds[:steps], 2.5, 2.0, 0.05, 0.1),
        Setting(1.0, (1.0,) * steps, 6.0, float(len(members)), 0.0, 0.0),
    )
    path.write_text(EnsembleFile(tuple(made), curve, 0.5, "logits", 0.95).dumps())
    return path


@pytest.fixture
def file(members: list[Path], tmp_path: Path) -> Path:
    return write(tmp_path / "e.yaml", members)


def alone(members: list[Path], x: np.ndarray) -> np.ndarray:
    out = []
    for path in members:
        with ei.InferenceSession(path, batch=len(x)) as session:
            out.append(softmax(session.run(None, {"image": x})[0]))
    return np.stack(out)


@pytest.mark.parametrize("quality", [0.0, 0.3, 0.5, 0.9, 1.0, None])
def test_rows_stop_as_the_paper_says(members: list[Path], file: Path, quality: float | None) -> None:
    x, _ = task.rows(60, 3)
    scores = alone(members, x)
    with ei.Ensemble.load(file, batch=8) as ensemble:
        answer = ensemble.run(x, quality=quality)
        thresholds = ensemble.setting(quality).thresholds
        one_by_one = [ensemble.run(x[i : i + 1], quality=quality) for i in range(10)]
    for row in range(len(x)):
        mean = scores[0, row]
        for k in range(len(members)):
            mean = scores[: k + 1, row].mean(axis=0)
            if k == len(members) - 1 or margins(mean[None])[0] > thresholds[k]:
                break
        assert answer.members_used[row] == k + 1
        np.testing.assert_allclose(answer.scores[row], mean, atol=1e-6)
    for row, single in enumerate(one_by_one):
        np.testing.assert_array_equal(single.scores[0], answer.scores[row])


def test_the_ends_of_the_dial(members: list[Path], file: Path) -> None:
    x, _ = task.rows(20, 4)
    with ei.Ensemble.load(file) as ensemble:
        assert set(ensemble.run(x, quality=1.0).members_used) == {3}
        assert set(ensemble.run(x, quality=0.0).members_used) == {1}
        used = [ensemble.run(x, quality=q).members_used.mean() for q in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert used == sorted(used) and 1 < used[2] < 3


def test_what_is_not_reached_does_not_run(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = task.rows(30, 5)
    asked: list[int] = []
    with ei.Ensemble.load(file) as ensemble:
        for session in ensemble.sessions:
            run = session.run
            monkeypatch.setattr(session, "run", lambda names, feed, run=run: (asked.append(len(feed["image"])), run(names, feed))[1])
        answer = ensemble.run(x)
    assert asked == [30, int((answer.members_used > 1).sum()), int((answer.members_used > 2).sum())]


def test_members_share_one_arena(file: Path) -> None:
    with ei.Ensemble.load(file, batch=4) as ensemble:
        ensemble.run(task.rows(8, 9)[0], quality=1.0)
        report = ensemble.memory_report()
        each = [s.plan.arena_bytes for s in ensemble.sessions if s.plan is not None]
    assert len(each) == 3 and max(each) <= report["arena_bytes"] < sum(each)


def test_a_budget_stops_before_a_member_that_would_be_late(file: Path) -> None:
    x, _ = task.rows(8, 6)
    with ei.Ensemble.load(file) as ensemble:
        assert set(ensemble.run(x, quality=1.0, latency_budget=0).members_used) == {1}
        assert set(ensemble.run(x, quality=1.0, latency_budget="60s").members_used) == {3}
        ensemble._seconds = [0.0, 0.0, 1e6]
        assert set(ensemble.run(x, quality=1.0, latency_budget="60s").members_used) == {2}


def test_the_controller_holds_a_latency(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only members move: 1, 2 and 3 ms a row, then half as fast, as a hot processor is."""
    x, _ = task.rows(400, 7)
    now, slow = [0.0], [1.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    with ei.Ensemble.load(file) as ensemble:
        for cost, session in zip((1e-3, 2e-3, 3e-3), ensemble.sessions, strict=True):
            run = session.run

            def timed(names: Any, feed: Any, run: Any = run, cost: float = cost) -> Any:
                now[0] += cost * slow[0] * len(feed["image"])
                return run(names, feed)

            monkeypatch.setattr(session, "run", timed)
        ensemble.hold_latency("3ms")
        for factor in (1.0, 2.0, 1.0):
            slow[0] = factor
            for i in range(200):
                ensemble.run(x[i : i + 1])
            start = now[0]
            for i in range(200, 400):
                ensemble.run(x[i : i + 1])
            assert (now[0] - start) / 200 == pytest.approx(3e-3, rel=0.15), factor
        ensemble.hold_latency(None)
        assert ensemble.target_latency is None
        with pytest.raises(ei.UsageError, match="target latency"):
            ensemble.hold_latency(0)


def test_a_ceiling_covers_all_members(members: list[Path], tmp_path: Path) -> None:
    program = f"""
import sys; sys.path[:0] = {sys.path!r}
import numpy as np
import edgeinfer as ei
path, x = {str(write(tmp_path / "e.yaml", members))!r}, np.load({str(tmp_path / "x.npy")!r})
try:
    ei.Ensemble.load(path, memory_limit="8MiB")
    raise SystemExit("accepted")
except ei.PlanError as error:
    smallest = error.smallest_ceiling
with ei.Ensemble.load(path, memory_limit=smallest + (1 << 20), batch=16) as e:
    used = e.run(x).members_used
    report = e.memory_report()
assert report["peak_rss"] <= smallest + (1 << 20), (report["peak_rss"], smallest)
assert report["predicted_peak_rss"] <= smallest + (1 << 20)
print(used.mean())
"""
    np.save(tmp_path / "x.npy", task.rows(64, 8)[0])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def damage(value: dict[str, Any], path: str, new: Any) -> None:
    *keys, last = path.split(".")
    for key in keys:
        value = value[int(key)] if isinstance(value, list) else value[key]  # type: ignore[index]
    if new is None:
        del value[last]
    else:
        value[int(last) if isinstance(value, list) else last] = new  # type: ignore[index]


@pytest.mark.parametrize(
    ("path", "new", "message"),
    [
        ("version", 2, "expected version 1, found 2"),
        ("checksum", "00000000", "damaged: expected checksum 00000000"),
        ("curve.1.thresholds.0", 0.1, "damaged"),
        ("curve.1.thresholds", [0.1], "expected 2 thresholds for 3 members, found 1"),
        ("curve.0.quality", 0.2, "rise from 0 to 1"),
        ("members", None, "'members' is missing"),
        ("scores", "votes", "logits, probabilities"),
        ("quality", "high", "expected a number"),
        ("members.1.sha256", "ab" * 32, "damaged"),
    ],
)
def test_files_that_are_not_right(file: Path, path: str, new: Any, message: str) -> None:
    value = yaml.safe_load(file.read_text())
    damage(value, path, new)
    file.write_text(yaml.safe_dump(value))
    with pytest.raises(ei.ContainerError, match=message) as raised:
        ei.Ensemble.load(file)
    assert str(file) in str(raised.value) and "\n" not in str(raised.value)


def test_truncated_at_every_tenth_byte(file: Path) -> None:
    whole = file.read_bytes()
    for end in range(0, len(whole) - 12, 10):
        file.write_bytes(whole[:end])
        with pytest.raises(ei.ContainerError):
            ei.Ensemble.load(file)


def test_other_containers_are_refused(members: list[Path], tmp_path: Path) -> None:
    path = write(tmp_path / "e.yaml", members)
    value = yaml.safe_load(path.read_text())
    value["members"][0]["path"], value["members"][1]["path"] = value["members"][1]["path"], value["members"][0]["path"]
    path.write_text(yaml.safe_dump(value))
    with pytest.raises(ei.ContainerError, match="SHA-256.*tune ensemble"):
        ei.Ensemble.load(path)
    value["members"][0]["path"] = "gone.edge"
    path.write_text(yaml.safe_dump(value))
    with pytest.raises(ei.ContainerError, match="gone.edge: no such file"):
        ei.Ensemble.load(path)


def test_members_with_other_outputs_are_refused(members: list[Path], tmp_path: Path) -> None:
    task.onnx.save(task.classifier(9, 8, classes=3), tmp_path / "three.onnx")
    ei.compress(tmp_path / "three.onnx", tmp_path / "three.edge", quantizer="none")
    with pytest.raises(
        ei.UsageError, match=r"three.edge: expected outputs like those of .*\[N, 4\].*\[N, 3\]|three.edge: expected outputs"
    ):
        ei.Ensemble.load(write(tmp_path / "e.yaml", [members[0], tmp_path / "three.edge"]))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((0, 2, 6, 6), np.float32), ei.InputError, "at least one"),
        (np.zeros((1, 2, 6, 5), np.float32), ei.InputError, "expected shape"),
        ({"photo": np.zeros((1, 2, 6, 6), np.float32)}, ei.InputError, "'image'.*'photo'"),
    ],
)
def test_bad_inputs(file: Path, x: Any, error: type[Exception], message: str) -> None:
    with ei.Ensemble.load(file) as ensemble:
        with pytest.raises(error, match=message):
            ensemble.run(x)
        for quality in (1.5, -0.1, "best"):
            with pytest.raises(ei.UsageError, match="quality"):
                ensemble.run(task.rows(1, 0)[0], quality=quality)  # type: ignore[arg-type]
        ensemble.run(task.rows(1, 0)[0])
