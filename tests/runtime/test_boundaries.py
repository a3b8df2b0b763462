"""Boundaries: where everything passes through one tensor, so that a run may pause there and rows may leave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from small import feed

from edgeinfer.kernels.codec import available_kernels
from edgeinfer.runtime.arena import Mapping
from edgeinfer.runtime.execution import Execution
from edgeinfer.runtime.lowering import boundaries
from edgeinfer.runtime.weights import WeightStore


def execution_of(path: Path, rows: int) -> tuple[Execution, Mapping]:
    store = WeightStore(str(path))
    store.load()
    execution = Execution(store, {"N": rows}, available_kernels()[0], 1)
    memory = Mapping(execution.arena_bytes)
    execution.bind(memory)
    return execution, memory


def test_only_single_passages_count(small: tuple[Path, Path]) -> None:
    """``small``: two inputs are joined, then a residual block keeps its input alive; only what follows the block is a boundary."""
    execution, _ = execution_of(small[1], 2)
    found = boundaries(execution.lowered)
    shapes = [execution.lowered.specs[name].shape for name in found]
    assert shapes == [(2, 12, 12, 49), (2, 12, 12, 49), (2, 1, 1, 49)]
    assert list(found.values()) == sorted(found.values())
    for name, index in found.items():
        later = [n for a in execution.lowered.actions[index:] for s in a.steps or () for n in s.tensors.values()]
        roots = {execution.lowered.places[n].root for n in later if n in execution.lowered.places}
        written = {n for a in execution.lowered.actions[index:] for s in a.steps or () for r, n in s.tensors.items() if r.startswith("y")}
        assert not roots & ({"left", "right"} | set(found) - {name} - written), (name, roots)


def test_a_paused_run_gives_the_same_bits(small: tuple[Path, Path]) -> None:
    execution, memory = execution_of(small[1], 3)
    inputs = feed(3)
    whole, parts = np.empty((3, 7), np.float32), np.empty((3, 7), np.float32)
    execution.run(inputs, {"scores": whole})
    memory.release()
    execution.begin(inputs)
    at = 0
    for index in boundaries(execution.lowered).values():
        execution.advance(inputs, at, index)
        at = index
    execution.advance(inputs, at, len(execution.lowered.actions))
    parts[...] = execution.tensor("scores", inputs)
    np.testing.assert_array_equal(whole, parts)
