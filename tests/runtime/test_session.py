"""Sessions: answers, batches and slices, errors that name the thing, the ceiling, and giving memory back."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import feed, small_model

ort = pytest.importorskip("onnxruntime")

import edgeinfer as ei  # noqa: E402
from edgeinfer.kernels.codec import available_kernels  # noqa: E402
from edgeinfer.runtime import session as session_module  # noqa: E402
from edgeinfer.runtime.ceiling import Monitor  # noqa: E402


def test_answers_equal_onnxruntime(small: tuple[Path, Path]) -> None:
    expected = ort.InferenceSession(str(small[0]), providers=["CPUExecutionProvider"]).run(None, feed(4))
    with ei.InferenceSession(small[1], batch=4) as session:
        (got,) = session.run(None, feed(4))
        (named,) = session.run(["scores"], feed(4))
    np.testing.assert_allclose(got, expected[0], rtol=0, atol=1e-5 * np.abs(expected[0]).max())
    np.testing.assert_array_equal(got, named)


def test_what_the_model_is(small: tuple[Path, Path]) -> None:
    with ei.InferenceSession(small[1]) as session:
        assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == [
            ("left", ["N", 5, 12, 12], "tensor(float)"),
            ("right", ["N", 5, 12, 12], "tensor(float)"),
        ]
        assert [(o.name, o.shape) for o in session.get_outputs()] == [("scores", ["N", 7])]


def test_concatenations_are_produced_in_place(small: tuple[Path, Path]) -> None:
    with ei.InferenceSession(small[1]) as session:
        assert session.plan is not None
        assert "concat" not in session.plan.nodes
        assert not any(region.name in ("r1", "c2") for region in session.plan.regions)


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8])
def test_any_batch_runs_and_gives_the_same_bits(small: tuple[Path, Path], rows: int) -> None:
    inputs = feed(rows, seed=rows)
    with ei.InferenceSession(small[1], batch=3, threads=2) as session:
        (together,) = session.run(None, inputs)
    with ei.InferenceSession(small[1], threads=1) as session:
        apart = [session.run(None, {k: v[i : i + 1] for k, v in inputs.items()})[0] for i in range(rows)]
    np.testing.assert_array_equal(together, np.concatenate(apart))


def test_every_kernel_variant_agrees(small: tuple[Path, Path]) -> None:
    results = {}
    for name in available_kernels():
        with ei.InferenceSession(small[1], kernels=name) as session:
            (results[name],) = session.run(None, feed(2))
    for got in results.values():
        np.testing.assert_allclose(got, results["plain"], rtol=0, atol=1e-5 * np.abs(got).max())


def test_on_layer_and_profile(small: tuple[Path, Path]) -> None:
    seen: list[tuple[str, float, int]] = []
    with ei.InferenceSession(small[1]) as session:
        (plain,) = session.run(None, feed(1))
        (watched,) = session.run(None, feed(1), on_layer=lambda *layer: seen.append(layer))
        session.profiling = True
        session.run(None, feed(1))
        profile = session.profile()
    np.testing.assert_array_equal(plain, watched)
    assert [name for name, _, _ in seen] == [name for name, _, _ in profile]
    assert all(seconds > 0 for _, seconds, _ in seen) and seen[-1][2] == 7 * 4


BAD: list[tuple[str, Any, str]] = [
    ("missing", lambda f: {"left": f["left"]}, "missing 'right'"),
    ("unknown", lambda f: {**f, "up": f["left"]}, "unknown 'up'"),
    ("dtype", lambda f: {**f, "left": f["left"].astype(np.float64)}, "expected dtype float32, found float64"),
    ("rank", lambda f: {**f, "left": f["left"][0]}, r"expected shape \[N, 5, 12, 12\], found \[5, 12, 12\]"),
    ("shape", lambda f: {**f, "left": f["left"][:, :, :11]}, r"found \[2, 5, 11, 12\]"),
    ("batches differ", lambda f: {**f, "left": f["left"][:1]}, "N"),
    ("empty", lambda f: {k: v[:0] for k, v in f.items()}, "empty"),
    ("not a mapping", lambda f: [f["left"]], "mapping"),
]


@pytest.mark.parametrize(("case", "change", "message"), BAD, ids=[b[0] for b in BAD])
def test_bad_inputs_are_named(small: tuple[Path, Path], case: str, change: Any, message: str) -> None:
    with ei.InferenceSession(small[1]) as session:
        with pytest.raises(ei.InputError, match=message):
            session.run(None, change(feed(2)))
        session.run(None, feed(2))  # unharmed


def test_an_unknown_output(small: tuple[Path, Path]) -> None:
    with ei.InferenceSession(small[1]) as session, pytest.raises(ei.InputError, match="'prob'.*'scores'"):
        session.run(["prob"], feed(1))


def test_bad_settings(small: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ei.KernelError, match="mmx.*available: .*plain"):
        ei.InferenceSession(small[1], kernels="mmx")
    monkeypatch.setenv("EDGEINFER_KERNELS", "sse9")
    with pytest.raises(ei.KernelError, match="sse9"):
        ei.InferenceSession(small[1])
    monkeypatch.delenv("EDGEINFER_KERNELS")
    monkeypatch.setenv("EDGEINFER_THREADS", "many")
    with pytest.raises(ei.UsageError, match="EDGEINFER_THREADS"):
        ei.InferenceSession(small[1])
    monkeypatch.setenv("EDGEINFER_THREADS", "3")
    assert ei.InferenceSession(small[1]).threads == 3
    with pytest.raises(ei.UsageError, match="symbols"):
        ei.InferenceSession(small[1], symbols={"S": 3})
    with pytest.raises(ei.PlanError, match="batch"):
        ei.InferenceSession(small[1], batch=0)
    with pytest.raises(ei.ContainerError, match="no such file"):
        ei.InferenceSession(small[1].parent / "absent.edge")


def test_a_closed_session_says_so(small: tuple[Path, Path]) -> None:
    session = ei.InferenceSession(small[1])
    session.close()
    session.close()
    with pytest.raises(ei.UsageError, match="closed"):
        session.run(None, feed(1))


def test_sessions_of_one_file_share_the_weights(small: tuple[Path, Path]) -> None:
    with ei.InferenceSession(small[1]) as one, ei.InferenceSession(str(small[1])) as two:
        assert one.store is two.store
        np.testing.assert_array_equal(one.run(None, feed(1))[0], two.run(None, feed(1))[0])


def test_a_ceiling_too_low_names_the_smallest_that_would_do(small: tuple[Path, Path]) -> None:
    with pytest.raises(ei.PlanError, match="smallest ceiling") as caught:
        ei.InferenceSession(small[1], memory_limit="1MiB")
    smallest = caught.value.smallest_ceiling
    assert smallest is not None
    with ei.InferenceSession(small[1], memory_limit=smallest) as session:
        session.run(None, feed(1))


def test_a_tight_ceiling_gives_slices_and_the_same_bits(tmp_path: Path) -> None:
    import onnx

    source, target = tmp_path / "wide.onnx", tmp_path / "wide.edge"
    onnx.save(small_model(side=96), source)
    ei.compress(str(source), str(target), quantizer="none")
    inputs = feed(16, side=96)
    with ei.InferenceSession(target, batch=16, threads=1) as session:
        (whole,) = session.run(None, inputs)
        assert session.plan is not None and session.plan.batch == 16
        generous, least = session.plan.predicted_peak_rss, session.plan.smallest_ceiling
    assert least < generous
    gc.collect()
    with ei.InferenceSession(target, batch=16, threads=1, memory_limit=(generous + least) // 2) as session:
        assert session.plan is not None and session.plan.batch < 16
        (sliced,) = session.run(None, inputs)
    np.testing.assert_array_equal(whole, sliced)


def test_passing_the_ceiling_fails_the_request_and_not_the_process(small: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with ei.InferenceSession(small[1], memory_limit="4GiB", threads=1) as session:
        (before,) = session.run(None, feed(1))
        hog = np.ones(8 << 20)  # 64 MiB that the plan knows nothing of
        assert session._monitor is not None
        session._monitor.limit = session_module.footprint() // 2  # more than giving back can make up for
        with pytest.raises(ei.CeilingExceeded, match="ceiling"):
            for _ in range(5000):
                session.run(None, feed(1))
        del hog
        session._monitor.limit = 4 << 30
        np.testing.assert_array_equal(session.run(None, feed(1))[0], before)


def test_a_stopped_run_resumes_with_smaller_slices(small: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = feed(8)
    with ei.InferenceSession(small[1], batch=8) as session:
        (expected,) = session.run(None, inputs)
    with ei.InferenceSession(small[1], batch=8, memory_limit="4GiB") as session:
        session.run(None, inputs)
        sizes: list[int] = []
        original = session._run_slice

        def stop_first(execution: Any, *arguments: Any) -> bool:
            sizes.append(len(arguments[1]["scores"]))
            if len(sizes) <= 2:
                monkeypatch.setattr(session._monitor, "watch", lambda: session._raise_stop(1))
            else:
                monkeypatch.setattr(session._monitor, "watch", lambda: None)
            return original(execution, *arguments)

        monkeypatch.setattr(session, "_run_slice", stop_first)
        (got,) = session.run(None, inputs)
    assert sizes == [8, 8, 4, 4], "once more as it was, with what could be given back given back; then smaller"
    np.testing.assert_array_equal(got, expected)


def test_limits_can_change_while_the_session_lives(small: tuple[Path, Path]) -> None:
    with ei.InferenceSession(small[1]) as session:
        (before,) = session.run(None, feed(1))
        with pytest.raises(ei.PlanError):
            session.set_memory_limit("2MiB")
        session.set_memory_limit("3GiB")
        assert isinstance(session._monitor, Monitor) and session.memory_report()["memory_limit"] == 3 << 30
        np.testing.assert_array_equal(session.run(None, feed(1))[0], before)
        session.trim()
        np.testing.assert_array_equal(session.run(None, feed(1))[0], before)
        session.set_memory_limit(None)
        assert session._monitor is None
        np.testing.assert_array_equal(session.run(None, feed(1))[0], before)


def test_the_report_adds_up(small: tuple[Path, Path]) -> None:
    with ei.InferenceSession(small[1], threads=1) as session:
        session.run(None, feed(1))
        report = session.memory_report()
        assert session.plan is not None
        parts = ("baseline_rss", "compressed_resident_bytes", "table_bytes", "arena_bytes", "io_bytes", "other_bytes")
        assert sum(report[p] for p in parts) == session.plan.predicted_peak_rss
        assert report["peak_rss"] >= report["rss"] > 0
        assert all(r["offset"] + r["bytes"] <= report["arena_bytes"] for r in report["regions"])


CHILD = """
import json, sys
import numpy as np
import edgeinfer as ei
session = ei.InferenceSession(sys.argv[1], memory_limit=int(sys.argv[2]) or None, threads=2, fence=bool(int(sys.argv[3])))
x = np.ones((1, 5, 12, 12), np.float32)
for _ in range(3):
    session.run(None, {"left": x, "right": x})
try:
    np.ones(64 << 20)
    hog = "lives"
except MemoryError:
    hog = "refused"
print(json.dumps(hog))
"""


def test_the_fence_refuses_what_the_plan_does_not_know(small: tuple[Path, Path]) -> None:
    done = subprocess.run([sys.executable, "-c", CHILD, str(small[1]), "0", "1"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == "refused"
    done = subprocess.run([sys.executable, "-c", CHILD, str(small[1]), "0", "0"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == "lives"


def test_a_thousand_sessions_leak_nothing(small: tuple[Path, Path]) -> None:
    import os

    def cycle(count: int) -> tuple[int, int]:
        for _ in range(count):
            with ei.InferenceSession(small[1], threads=1) as session:
                session.run(None, feed(1))
        gc.collect()
        return session_module.footprint(), len(os.listdir("/proc/self/fd"))

    before, files = cycle(50)
    after, files_after = cycle(300)
    assert files_after == files
    assert after - before < 2 << 20
