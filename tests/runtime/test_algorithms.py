"""The choice of algorithms: by shape, not by batch; limited by scratch; shown by the plan; other algorithms give nearly the same values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeinfer.coders.tensor import encode_tensor
from edgeinfer.container import Writer
from edgeinfer.graph import Graph, Node, TensorSpec
from edgeinfer.kernels.program import ALGORITHMS
from edgeinfer.quantizers.none import NoQuantizer
from edgeinfer.runtime import arena, profile
from edgeinfer.runtime.execution import Execution
from edgeinfer.runtime.plan import make_plan
from edgeinfer.runtime.weights import WeightStore

CONV = {"pads": [1, 1, 1, 1], "strides": [1, 1], "dilations": [1, 1], "group": 1, "kernel_shape": [3, 3]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> WeightStore:
    """Two convolutions: one that Winograd's algorithms can do, one with stride 2."""
    path = tmp_path_factory.mktemp("algorithms") / "two.edge"
    random = np.random.default_rng(0)
    graph = Graph(
        name="two",
        inputs=[TensorSpec("x", "float32", ("N", 16, 16, 64))],
        outputs=[TensorSpec("z", "float32", ("N", 8, 8, 32))],
        nodes=[
            Node("Conv", "first", ["x", "w"], ["y"], dict(CONV)),
            Node("Conv", "second", ["y", "v"], ["z"], {**CONV, "strides": [2, 2]}),
        ],
        batch="N",
    )
    with Writer(path, graph) as writer:
        for name, rows in (("w", 64), ("v", 32)):
            values = (random.standard_normal((rows, 3, 3, 64)) / 24).astype(np.float32)
            writer.add_coded(name, values.shape, "float32", encode_tensor(name, values, rows, 1, NoQuantizer()))
    found = WeightStore(str(path))
    found.load()
    return found


def run(store: WeightStore, batch: int = 1, **more: int) -> tuple[np.ndarray, Execution]:
    execution = Execution(store, {"N": batch}, "plain", 1, **more)
    memory = arena.Mapping(execution.arena_bytes)
    execution.bind(memory)
    x = np.random.default_rng(1).standard_normal((batch, 16, 16, 64)).astype(np.float32)
    z = np.empty((batch, 8, 8, 32), np.float32)
    execution.run({"x": x}, {"z": z})
    return z, execution


def test_choice_is_the_fastest_and_only_where_there_is_one(store: WeightStore) -> None:
    _, execution = run(store)
    assert set(execution.choices) == {"first"}
    choice = execution.choices["first"]
    assert set(choice.seconds) == {"direct", "winograd_2_3", "winograd_4_3"}
    assert choice.algorithm == min(choice.seconds, key=lambda name: choice.seconds[name]) != "direct"
    assert choice.why.startswith(choice.algorithm)


def test_choice_does_not_depend_on_the_batch(store: WeightStore) -> None:
    for batch in (1, 2, 9, 64):
        assert Execution(store, {"N": batch}, "plain", 1).choices == Execution(store, {"N": 1}, "plain", 3).choices


def test_scratch_can_be_traded_for_time(store: WeightStore) -> None:
    free, chosen = run(store)
    lean, direct = run(store, scratch_limit=0)
    assert direct.choices == {} and direct.scratch_bytes < chosen.scratch_bytes
    assert sum(direct.seconds_expected) > sum(chosen.seconds_expected)
    _, between = run(store, scratch_limit=chosen.scratch_bytes)
    assert between.choices["first"].algorithm == chosen.choices["first"].algorithm
    assert 0 < np.abs(free - lean).max() <= 5e-5 * np.abs(lean).max()


def test_scratch_of_the_chosen_algorithm_is_in_the_plan(store: WeightStore) -> None:
    plan, execution = make_plan(store, kernels="plain", threads=2)
    step = execution.lowered.actions[0].steps[0]
    ints = {**step.ints, "x_ld": 64, "y_ld": 64, "algorithm": ALGORITHMS[dict(plan.choices)["first"].algorithm]}
    needed = execution.program.scratch_of("conv", ints, store.coded["w"])
    region = next(r for r in plan.regions if r.name == "scratch")
    assert region.nbytes >= 2 * needed > 0


def test_plan_says_what_was_chosen_and_why(store: WeightStore) -> None:
    plan, _ = make_plan(store, kernels="plain", threads=1)
    algorithm = dict(plan.choices)["first"].algorithm
    assert f"{algorithm:<14}first  ({algorithm} " in plan.table()
    entry = plan.to_json()["algorithms"][0]
    assert entry["node"] == "first" and entry["algorithm"] == algorithm and entry["expected_ms"]["direct"] > entry["expected_ms"][algorithm]


def test_a_measured_profile_decides(store: WeightStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = dict(profile.BUILT_IN["plain"].rates, winograd=1.0)
    path = tmp_path / "device.json"
    path.write_text(profile.dumps({"plain": profile.Profile("plain", "test", slow)}))
    monkeypatch.setenv("EDGEINFER_PROFILE", str(path))
    assert Execution(store, {"N": 1}, "plain", 1).choices["first"].algorithm == "direct"
