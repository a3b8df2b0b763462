"""Any plan, same bits: random networks under random segments, residencies, threads; and plans that limits call for."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import numpy as np
import pytest
from random_networks import CODINGS, images, random_container

onnx = pytest.importorskip("onnx")

import edgeinfer as ei  # noqa: E402
from edgeinfer.kernels.codec import available_kernels  # noqa: E402
from edgeinfer.runtime import plan as planning  # noqa: E402
from edgeinfer.runtime.arena import Arena, Mapping  # noqa: E402
from edgeinfer.runtime.batching import Segment, capped  # noqa: E402
from edgeinfer.runtime.blocks import cuts  # noqa: E402
from edgeinfer.runtime.execution import Execution, Lowerings  # noqa: E402
from edgeinfer.runtime.residency import Piece, Residency  # noqa: E402
from edgeinfer.runtime.weights import WeightStore, open_store, resident  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random")


def random_segments(draw: random.Random, lowerings: Lowerings, batch: int) -> list[Segment]:
    """Segments at random places that allow it, with batches that divide each other and rise to ``batch``."""
    places = sorted(cuts(lowerings.store.graph, lowerings[1], lowerings[2]))
    chosen = sorted(draw.sample(places, min(len(places), draw.randint(0, 3))))
    batches = [batch]
    for _ in chosen:
        batches.append(draw.choice([d for d in range(1, batches[-1] + 1) if batches[-1] % d == 0]))
    edges = [0, *chosen, len(lowerings[1].actions)]
    return capped([Segment(a, b, n) for a, b, n in zip(edges, edges[1:], reversed(batches), strict=False)], batch)


def random_residency(draw: random.Random, store: WeightStore) -> tuple[Residency, int]:
    """Some tensors decoded, some in pieces of which some are streamed, and a ring for them."""
    decoded, pieces, largest = set(), [], 0
    depthwise = {node.inputs[1] for node in store.graph.nodes if node.op == "Conv" and node.attrs["group"] > 2}
    for name in store.coded:
        kind = draw.choice(["compressed", "decoded", "pieces", "pieces"])
        if kind == "decoded":
            decoded.add(name)
        elif kind == "pieces" and name not in depthwise:
            own = []
            for group, sizes in enumerate(store.measure(name)[1]):
                at = 0
                while at < len(sizes):
                    count = draw.randint(1, len(sizes) - at)
                    own.append(Piece(name, group, at, count, draw.random() < 0.7))
                    largest = max(largest, sum(sizes[at : at + count]))
                    at += count
            pieces.append((name, tuple(own)))
    return Residency(frozenset(decoded), tuple(pieces)), (largest + 256) * draw.choice([1, 2, 5]) + 64


@pytest.mark.parametrize("seed", range(18))
def test_any_plan_gives_the_same_bits(seed: int, folder: Path) -> None:
    path = random_container(seed, folder)
    draw = random.Random(seed)
    kernels = draw.choice(available_kernels())
    store = open_store(str(path))
    for trial in range(6):
        batch = draw.choice([1, 2, 4, 6, 8])
        inputs = images(path, batch, trial)
        with ei.InferenceSession(path, threads=1, batch=batch, kernels=kernels) as session:
            expected = session.run(None, inputs)
        lowerings = Lowerings(store, {})
        residency, ring = random_residency(draw, store)
        segments = random_segments(draw, lowerings, batch)
        own = resident(store, residency)
        own.load()
        execution = Execution(own, {"N": batch}, kernels, draw.choice([1, 2, 3]), segments, ring, lowerings)
        memory = Mapping(execution.arena_bytes)
        memory.buffer(0, memory.nbytes)[...] = 0xFF  # NaN wherever nothing was written
        execution.bind(memory)
        names = [spec.name for spec in store.graph.outputs]
        outputs = {n: np.empty_like(e) for n, e in zip(names, expected, strict=True)}
        for _ in range(2):
            execution.run(inputs, outputs)
            for name, array in zip(names, expected, strict=True):
                np.testing.assert_array_equal(outputs[name], array, err_msg=f"{segments} {residency}")


def test_a_run_that_fails_as_it_begins_stops_reading_ahead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader writes to the arena, which another session may use next."""
    path = random_container(3, folder)
    store = open_store(str(path))
    (name, (_, sizes)), *_ = [(n, store.measure(n)) for n in store.coded]
    pieces = tuple(Piece(name, 0, block, 1, True) for block in range(len(sizes[0])))
    own = resident(store, Residency(pieces=((name, pieces),)))
    own.load()
    execution = Execution(own, {"N": 1}, available_kernels()[0], 1, None, 1 << 20)
    memory = Mapping(execution.arena_bytes)
    execution.bind(memory)
    inputs = images(path, 1)
    reader = execution._reader
    assert reader is not None and not reader.threaded
    seen = []

    def interrupted(*_: object) -> None:
        seen.append(reader.threaded)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(execution.parts[0], "point", interrupted)
        with pytest.raises(KeyboardInterrupt):
            execution.run(inputs, {})
    assert seen == [True] and not reader.threaded
    execution.run(inputs, {})


def test_plans_of_one_container_wait_for_each_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that is done lets go of the tables; neither it nor loading may do that under a plan that still reads them."""
    monkeypatch.setattr(planning, "LEAST_STREAMED", 1)
    store = WeightStore(str(random_container(3, folder)))
    measuring, go_on = threading.Event(), threading.Event()
    measure, failed = WeightStore.measure, []

    def slowly(self: WeightStore, name: str) -> tuple[int, list[list[int]]]:
        found = measure(self, name)
        if threading.current_thread() is first and not measuring.is_set():
            measuring.set()
            go_on.wait(10)
            if not self.coded[name].attached or self.loaded:
                failed.append(name)
        return found

    def plan() -> None:
        planning.make_plan(store, batch=2, threads=1, shared=False)

    monkeypatch.setattr(WeightStore, "measure", slowly)
    first = threading.Thread(target=plan)
    others = [threading.Thread(target=plan), threading.Thread(target=store.load)]
    first.start()
    assert measuring.wait(10)
    for thread in others:
        thread.start()
        thread.join(0.5)
    go_on.set()
    for thread in (first, *others):
        thread.join()
    assert not failed and store.loaded


def test_the_codings_are_all_met() -> None:
    assert {seed % len(CODINGS) for seed in range(18)} == set(range(len(CODINGS)))


def test_boundary_buffers_are_shared_by_no_one(folder: Path) -> None:
    """Regions that live at the same time, the boundary buffers from the first action on, do not overlap."""
    store = open_store(str(random_container(3, folder)))
    lowerings = Lowerings(store, {})
    draw = random.Random(5)
    for _ in range(20):
        execution = Execution(store, {"N": 8}, "plain", 2, random_segments(draw, lowerings, 8), 1 << 16, lowerings)
        for a in execution.regions:
            assert a.offset + a.nbytes <= execution.arena_bytes
            for b in execution.regions:
                if a is not b and a.first <= b.last and b.first <= a.last and a.nbytes and b.nbytes:
                    assert a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset


@pytest.mark.parametrize("seed", [2, 7, 8])
def test_every_limit_from_the_smallest_on_has_a_plan(seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the ceiling that PlanError names, where weights are streamed, to the one that holds everything."""
    path = random_container(seed, folder)
    for name in ("RUN_BYTES", "STREAM_BYTES", "THREAD_BYTES", "SEARCH_BYTES", "SEARCH_ACTION_BYTES", "SEARCH_SPREAD", "BASELINE_SPREAD"):
        monkeypatch.setattr(planning, name, 0)
    monkeypatch.setattr(planning, "LEAST_STREAMED", 1)
    monkeypatch.setattr(planning, "footprint", lambda: 0)
    monkeypatch.setattr("edgeinfer.runtime.residency.RING_BYTES", 1)
    inputs = images(path, 6)
    with ei.InferenceSession(path, threads=1, batch=6) as session:
        expected = session.run(None, inputs)
    store = open_store(str(path))
    whole, _ = planning.make_plan(store, batch=6, threads=1, baseline=0, shared=False)
    with pytest.raises(ei.PlanError) as error:
        planning.make_plan(store, batch=6, memory_limit=1, threads=1, baseline=0, shared=False)
    smallest = error.value.smallest_ceiling
    assert smallest is not None and smallest == whole.smallest_ceiling < whole.predicted_peak_rss
    streamed, segments = set(), set()
    for part in range(9):
        limit = smallest + (whole.predicted_peak_rss - smallest) * part // 8
        made, execution = planning.make_plan(store, batch=6, memory_limit=limit, threads=1, baseline=0, shared=False)
        assert made.predicted_peak_rss <= limit
        assert made.arena_bytes >= max(r.offset + r.nbytes for r in made.regions)
        segments.add(made.segments)
        streamed.add(made.streamed_bytes > 0)
        execution.store.load()
        memory = Mapping(execution.arena_bytes)
        execution.bind(memory)
        feeds = {"x": np.ascontiguousarray(inputs["x"][: made.batch])}
        outputs = {s.name: np.empty_like(e[: made.batch]) for s, e in zip(store.graph.outputs, expected, strict=True)}
        execution.run(feeds, outputs)
        if made.choices == whole.choices:
            for (_, got), want in zip(outputs.items(), expected, strict=True):
                np.testing.assert_array_equal(got, want[: made.batch])
    assert streamed == {True, False} and len(segments) >= 2


def test_decoded_residency(folder: Path) -> None:
    path = random_container(1, folder)
    inputs = images(path, 3)
    with ei.InferenceSession(path, threads=2, batch=3) as session:
        expected = session.run(None, inputs)
    with ei.InferenceSession(path, threads=2, batch=3, residency="decoded") as session:
        assert session.plan is not None and session.plan.decoded_bytes > 0
        for got, want in zip(session.run(None, inputs), expected, strict=True):
            np.testing.assert_array_equal(got, want)
        assert session.time_decode(1) > 0
    with ei.InferenceSession(path, batch=3, memory_limit="4GiB") as session:  # Huffman: worth it where there is room
        assert session.plan is not None and session.plan.decoded_bytes > 0
        np.testing.assert_array_equal(session.run(None, inputs)[0], expected[0])
    with ei.InferenceSession(path, batch=3, memory_limit="4GiB", residency="compressed") as session:
        assert session.plan is not None and session.plan.decoded_bytes == 0


def test_sessions_take_turns_in_one_arena(folder: Path) -> None:
    first, second = random_container(0, folder), random_container(4, folder)
    a, b = images(first, 2), images(second, 7)
    with ei.InferenceSession(first, batch=2) as one, ei.InferenceSession(second, batch=7) as two:
        expected = one.run(None, a)[0], two.run(None, b)[0]
        sizes = [s.plan.arena_bytes for s in (one, two) if s.plan is not None]
    arena = Arena()
    with ei.InferenceSession(first, batch=2, arena=arena) as one, ei.InferenceSession(second, batch=7, arena=arena) as two:
        for _ in range(2):
            np.testing.assert_array_equal(one.run(None, a)[0], expected[0])
            np.testing.assert_array_equal(two.run(None, b)[0], expected[1])
        assert arena.nbytes == max(sizes)
        with pytest.raises(ei.UsageError, match="shares its arena"):
            one.run(None, a, on_layer=lambda *layer: two.run(None, b))
        np.testing.assert_array_equal(one.run(None, a)[0], expected[0])
    assert arena.nbytes == max(sizes), "the arena is not theirs to close"
    arena.close()


def test_a_latency_limit_chooses_the_round(folder: Path) -> None:
    path = random_container(0, folder)
    plan = ei.plan(str(path), batch=64, threads=1)
    round_seconds = plan.predicted_ms_per_image * plan.batch / 1e3
    halved = ei.plan(str(path), batch=64, threads=1, latency_limit=round_seconds / 2)
    assert halved.batch < 64 and halved.predicted_ms_per_image * halved.batch / 1e3 <= round_seconds / 2
    with pytest.raises(ei.PlanError, match="latency limit"):
        ei.plan(str(path), batch=64, threads=1, latency_limit=1e-9)
    with ei.InferenceSession(path, batch=64, latency_limit=round_seconds / 2, threads=1) as session:
        inputs = images(path, 64)
        with ei.InferenceSession(path, batch=64, threads=1) as free:
            expected = free.run(None, inputs)[0]
        for _ in range(6):
            np.testing.assert_array_equal(session.run(None, inputs)[0], expected)
        assert session.plan is not None and session.plan.batch <= halved.batch
