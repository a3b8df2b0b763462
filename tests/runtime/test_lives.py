"""Sessions that are treated badly: used from callbacks and other threads, forgotten, forked, fed strange arrays."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import feed

onnx = pytest.importorskip("onnx")

import edgeinfer as ei  # noqa: E402


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``x`` [N, T, 8] -> ``y`` [N, T, 16]."""
    generator = np.random.default_rng(3)
    weights = [
        onnx.numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("w", (8, 16)), ("offset", (8,)))
    ]
    nodes = [
        onnx.helper.make_node("Add", ["x", "offset"], ["moved"]),
        onnx.helper.make_node("MatMul", ["moved", "w"], ["product"]),
        onnx.helper.make_node("Tanh", ["product"], ["y"]),
    ]

    def value(name: str, shape: list[int | str]) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    graph = onnx.helper.make_graph(nodes, "sequences", [value("x", ["N", "T", 8])], [value("y", ["N", "T", 16])], weights)
    folder = tmp_path_factory.mktemp("sequences")
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), folder / "s.onnx")
    ei.compress(folder / "s.onnx", folder / "s.edge", quantizer="none")
    return folder / "s.edge"


def words(rows: int, length: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(rows * 1000 + length)
    return {"x": generator.standard_normal((rows, length, 8)).astype(np.float32)}


def watchers() -> int:
    return sum(t.name == "edgeinfer-ceiling" for t in threading.enumerate())


def test_an_exception_in_on_layer_leaves_the_session_whole(small: tuple[Path, Path]) -> None:
    def fail(*layer: object) -> None:
        raise RuntimeError("mine")

    with ei.InferenceSession(small[1], memory_limit="4GiB") as session:
        (expected,) = session.run(None, feed(2))
        with pytest.raises(RuntimeError, match="mine"):
            session.run(None, feed(2), on_layer=fail)
        np.testing.assert_array_equal(session.run(None, feed(2))[0], expected)


def test_what_would_pull_memory_from_under_a_run_is_refused(small: tuple[Path, Path]) -> None:
    with ei.InferenceSession(small[1], memory_limit="4GiB") as session:
        (expected,) = session.run(None, feed(2))
        refused: list[str] = []

        def meddle(*layer: object) -> None:
            for call in (session.close, session.trim, lambda: session.run(None, feed(2))):
                with pytest.raises(ei.UsageError, match="running") as caught:
                    call()
                refused.append(str(caught.value))

        np.testing.assert_array_equal(session.run(None, feed(2), on_layer=meddle)[0], expected)
    assert {text.split(":")[0] for text in refused} == {"close", "trim", "run"}


@pytest.mark.parametrize("before", [None, "3GiB"])
def test_a_ceiling_that_changes_in_the_middle_of_a_run(small: tuple[Path, Path], before: str | None) -> None:
    inputs = feed(8)
    with ei.InferenceSession(small[1], batch=8) as session:
        (expected,) = session.run(None, inputs)
    with ei.InferenceSession(small[1], batch=8, memory_limit=before) as session:
        changed = False
        seen: list[str] = []

        def change(name: str, seconds: float, nbytes: int) -> None:
            nonlocal changed
            seen.append(name)
            if not changed and len(seen) == 3:
                changed = True
                session.set_memory_limit("4GiB")

        (got,) = session.run(None, inputs, on_layer=change)
        assert session.plan is not None and session.plan.memory_limit == 4 << 30
        assert session._monitor is not None and session._monitor.limit == 4 << 30
    assert seen[:3] == seen[3:6], "the slice begins anew, before the next layer"
    np.testing.assert_array_equal(got, expected)


def test_a_run_that_is_stopped_again_and_again_ends(small: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with ei.InferenceSession(small[1], batch=4, memory_limit="4GiB") as session:
        (expected,) = session.run(None, feed(4))
        assert session._monitor is not None
        with monkeypatch.context() as patch:
            patch.setattr(session._monitor, "watch", lambda: session._raise_stop(5 << 30))
            with pytest.raises(ei.CeilingExceeded, match=str(5 << 30)):
                session.run(None, feed(4))
        np.testing.assert_array_equal(session.run(None, feed(4))[0], expected)


def test_a_late_stop_does_not_outlive_the_ceiling(small: tuple[Path, Path]) -> None:
    with ei.InferenceSession(small[1], memory_limit="4GiB") as session:
        session.run(None, feed(1))
        session._raise_stop(1)  # the monitor, just after the last step
        session.set_memory_limit(None)
        session.run(None, feed(1))


def test_a_forgotten_session_gives_everything_back(small: tuple[Path, Path]) -> None:
    gc.collect()
    threads = watchers()
    session = ei.InferenceSession(small[1], memory_limit="4GiB")
    session.run(None, feed(1))
    store = weakref.ref(session.store)
    assert watchers() == threads + 1
    del session
    gc.collect()
    assert store() is None
    end = time.monotonic() + 5
    while watchers() > threads and time.monotonic() < end:
        time.sleep(0.01)
    assert watchers() == threads


def test_a_closed_session_holds_no_weights(small: tuple[Path, Path]) -> None:
    session = ei.InferenceSession(small[1])
    store = weakref.ref(session.store)
    session.close()
    session.close()
    gc.collect()
    assert store() is None and session.get_inputs()[0].name == "left"
    for call in (lambda: session.run(None, feed(1)), lambda: session.store, session.memory_report, session.time_decode):
        with pytest.raises(ei.UsageError, match="closed"):
            call()


@pytest.mark.parametrize("threads", [1, 2])
def test_sessions_in_threads_share_one_pool(small: tuple[Path, Path], threads: int) -> None:
    inputs = [feed(3, seed=n) for n in range(4)]
    with ei.InferenceSession(small[1], batch=3, threads=1) as session:
        expected = [session.run(None, x)[0] for x in inputs]
    wrong: list[Any] = []

    def work(n: int) -> None:
        try:
            with ei.InferenceSession(small[1], batch=3, threads=threads, memory_limit="4GiB") as own:
                wrong.extend(n for _ in range(50) if not np.array_equal(own.run(None, inputs[n])[0], expected[n]))
        except Exception as error:
            wrong.append(error)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


@pytest.mark.parametrize("threads", [3, 8, 64])
def test_more_threads_than_cores(small: tuple[Path, Path], threads: int) -> None:
    with ei.InferenceSession(small[1], threads=1) as session:
        (expected,) = session.run(None, feed(1))
    with ei.InferenceSession(small[1], threads=threads) as session:
        for _ in range(5):
            np.testing.assert_array_equal(session.run(None, feed(1))[0], expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_goes_on_with_the_session_it_was_born_with(small: tuple[Path, Path]) -> None:
    with ei.InferenceSession(small[1], threads=2, memory_limit="4GiB") as session:
        (expected,) = session.run(None, feed(2))
        child = os.fork()
        if child == 0:
            same = np.array_equal(session.run(None, feed(2))[0], expected) and watchers() == 1
            session.close()
            os._exit(0 if same else 1)
        end = time.monotonic() + 30
        while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
            time.sleep(0.01)
        if done == (0, 0):
            os.kill(child, 9)
        assert done == (child, 0)
        np.testing.assert_array_equal(session.run(None, feed(2))[0], expected)


def test_shapes_that_change_all_the_time_leave_nothing_behind(sequences: Path) -> None:
    with ei.InferenceSession(sequences) as session:
        for length in range(1, 40):
            session.run(None, words(1, length))
        assert len(session._executions) <= 4 and len(session._plans) <= 4


def test_every_shape_has_its_own_plan(sequences: Path) -> None:
    long = words(64, 2000)
    with ei.InferenceSession(sequences, batch=64, threads=1) as session:
        expected = session.run(None, long)[0]
    gc.collect()
    plan = ei.plan(str(sequences), batch=64, threads=1, symbols={"T": 2000}, memory_limit="4GiB")
    between = (plan.predicted_peak_rss + plan.smallest_ceiling) // 2
    with ei.InferenceSession(sequences, batch=64, threads=1, memory_limit=between) as session:
        first = session.run(None, long)[0]
        sliced = session.plan.batch if session.plan else 0
        session.run(None, words(64, 2))
        assert session.plan is not None and sliced < session.plan.batch == 64
        again = session.run(None, long)[0]
        assert session.plan.batch == sliced, "the slices of the short sequences are not those of the long ones"
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(again, expected)


def test_a_ceiling_for_a_session_planned_by_its_first_run(sequences: Path) -> None:
    with ei.InferenceSession(sequences) as session:
        expected = session.run(None, words(2, 5))
        session.set_memory_limit("4GiB")
        for got, want in zip(session.run(None, words(2, 5)), expected, strict=True):
            np.testing.assert_array_equal(got, want)


def test_arrays_in_any_memory_order_and_place(small: tuple[Path, Path]) -> None:
    inputs = feed(2)
    with ei.InferenceSession(small[1]) as session:
        (expected,) = session.run(None, inputs)
        odd = {}
        for name, array in inputs.items():
            raw = np.zeros(array.nbytes + 1, np.uint8)
            raw[1:] = array.reshape(-1).view(np.uint8)
            odd[name] = raw[1:].view(np.float32).reshape(array.shape)
            assert not odd[name].flags.aligned
        np.testing.assert_array_equal(session.run(None, odd)[0], expected)
        fortran = {name: np.asfortranarray(array) for name, array in inputs.items()}
        np.testing.assert_array_equal(session.run(None, fortran)[0], expected)
        for array in inputs.values():
            array.setflags(write=False)
        np.testing.assert_array_equal(session.run(None, inputs)[0], expected)
