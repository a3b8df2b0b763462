"""Runs one lowered node through the native program: tensors side by side in one arena, weights coded without loss.

For tests of operators; the runtime has its own way from a graph to a program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from edgeinfer.graph import Node, TensorSpec
from edgeinfer.ops import OPERATORS, Alias, Step

ALIGNMENT = 64


class Plan:
    """What an operator sees while one node is lowered (``ops.base.Lowering``); ``known`` inputs have values, ``coded`` ones are weights."""

    def __init__(self, specs: Mapping[str, TensorSpec], known: Mapping[str, np.ndarray], coded: set[str]) -> None:
        self._specs, self._known, self._coded = specs, known, coded
        self.literals: dict[str, np.ndarray] = {}
        self.workspaces: dict[str, int] = {}

    def spec(self, name: str) -> TensorSpec:
        return self._specs[name]

    def value(self, name: str) -> np.ndarray | None:
        return self._known.get(name)

    def is_coded(self, name: str) -> bool:
        return name in self._coded

    def literal(self, array: np.ndarray) -> str:
        name = f"literal{len(self.literals)}"
        self.literals[name] = array
        return name

    def workspace(self, nbytes: int) -> str:
        name = f"workspace{len(self.workspaces)}"
        self.workspaces[name] = nbytes
        return name


def lower(node: Node, inputs: Mapping[str, np.ndarray], known: set[str], coded: set[str]) -> tuple[list[Step] | Alias | None, Plan]:
    """Infer and lower a node for these inputs."""
    op = OPERATORS[node.op]()
    specs = {k: TensorSpec(k, str(a.dtype), a.shape) for k, a in inputs.items()}
    values = [inputs[n] if n in known else None for n in node.inputs]
    specs.update({t.name: t for t in op.infer(node, [specs.get(n) for n in node.inputs], values)})
    plan = Plan(specs, {k: inputs[k] for k in known}, coded)
    return op.lower(node, plan), plan


def coded_matrix(matrix: np.ndarray, groups: int, k_chunk: int = 16) -> Any:
    """A matrix [rows, k] as a coded tensor of plain floats, in the order of weights.h; small chunks, so that there are several."""
    from edgeinfer.kernels.codec import CodedTensor

    rows, k = matrix.shape
    tiles = []
    for group in np.split(matrix, groups):
        for first in range(0, len(group), 32):
            block = group[first : first + 32]
            padded = np.pad(block, ((0, -len(block) % 8), (0, 0)))
            tiles += [padded[:, at : at + k_chunk].T.reshape(-1) for at in range(0, k, k_chunk)]
    stored = np.concatenate(tiles).astype("<f4").tobytes()
    entry = SimpleNamespace(
        name="w",
        rows=rows,
        k=k,
        groups=groups,
        k_chunk=k_chunk,
        extent=SimpleNamespace(offset=0, length=len(stored)),
        parts={"plane0": (0, len(stored))},
        planes=({"coder": "raw_f32", "bits": 32, "lanes": 0, "extra": 0},),
    )
    tensor = CodedTensor(entry)
    buffer = np.zeros(len(stored) + 64, np.uint8)  # EI_OVERREAD bytes behind it
    buffer[: len(stored)] = np.frombuffer(stored, np.uint8)
    tensor.attach(buffer)
    np.testing.assert_array_equal(tensor.decode(), matrix)
    return tensor


def execute(
    steps: list[Step],
    plan: Plan,
    node: Node,
    inputs: Mapping[str, np.ndarray],
    program: Any,
    weights: Callable[[np.ndarray], Any],
    threads: int = 1,
) -> list[np.ndarray]:
    """Run the steps of a node and return its outputs.

    Args:
        program: an empty ``Program`` of some variant.
        weights: makes the coded form of a matrix [rows, k] in so many groups.
    """
    from edgeinfer.kernels.program import STEP_FIELDS

    arrays = {k: np.ascontiguousarray(a) for k, a in {**inputs, **plan.literals}.items() if not plan.is_coded(k)}
    sizes = {k: a.nbytes for k, a in arrays.items()} | plan.workspaces
    for name in node.outputs:
        sizes[name] = int(np.prod(plan.spec(name).shape, dtype=np.int64)) * np.dtype(plan.spec(name).dtype).itemsize
    offsets, total = {}, 0
    for name, size in sizes.items():
        offsets[name] = total
        total += -(-size // ALIGNMENT) * ALIGNMENT + ALIGNMENT
    # every byte that nobody writes is a NaN, and the gap behind every tensor must still be one at the end
    arena = np.full(total + ALIGNMENT, 0xFF, np.uint8)
    arena = arena[-arena.ctypes.data % ALIGNMENT :]
    for name, array in arrays.items():
        arena[offsets[name] : offsets[name] + array.nbytes] = array.reshape(-1).view(np.uint8)
    kept = []
    for step in steps:
        ints = dict(step.ints)
        roles, names, _ = STEP_FIELDS[step.kind]
        for role in roles:
            if f"{role}_ld" in names and role in step.tensors and f"{role}_ld" not in ints:
                shape = plan.spec(step.tensors[role]).shape
                ints[f"{role}_ld"] = int(shape[-1]) if shape else 1
        coded = None
        if step.weights is not None:
            matrix = inputs[step.weights]
            coded = weights(matrix.reshape(matrix.shape[0], -1), ints.get("groups", 1))
            kept.append(coded)
        program.append(step.kind, {r: (0, offsets[n]) for r, n in step.tensors.items()}, ints, step.floats, coded)
    program.set_slot(0, arena.ctypes.data, total)
    scratch = np.empty(program.scratch_bytes * threads + ALIGNMENT, np.uint8)
    program.set_scratch(scratch.ctypes.data + -scratch.ctypes.data % ALIGNMENT, program.scratch_bytes)
    assert program.run(0, len(program), threads) == len(program)
    for name, size in sizes.items():
        end = offsets[name] + size
        assert (arena[end : end + ALIGNMENT] == 0xFF).all(), f"something was written behind {name}"
    for name, array in arrays.items():
        assert arena[offsets[name] : offsets[name] + array.nbytes].tobytes() == array.tobytes(), f"input {name} was written"
    found = []
    for name in node.outputs:
        spec = plan.spec(name)
        raw = arena[offsets[name] : offsets[name] + sizes[name]].tobytes()
        found.append(np.frombuffer(raw, spec.dtype).reshape(spec.shape))  # type: ignore[arg-type]
    return found
