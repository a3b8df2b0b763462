"""Native steps of every case against the NumPy form: all kernel variants of this CPU, one thread and two."""

from __future__ import annotations

import numpy as np
import pytest
from lowered import coded_matrix, execute, lower

from edgeinfer.kernels import codec, program
from edgeinfer.ops import OPERATORS, Alias
from edgeinfer.ops.activations import ACTIVATIONS
from edgeinfer.ops.arithmetic import OPERATIONS

from .cases import CASES, Case
from .test_registry import assert_close, label, node_of, variants

VARIANTS = codec.available_kernels()


def test_codes_are_those_of_the_kernels() -> None:
    assert ACTIVATIONS == program.ACTIVATIONS
    assert OPERATIONS == program.OPERATIONS


@pytest.mark.parametrize("case", CASES, ids=label)
def test_steps(case: Case) -> None:
    for variant in variants(case):
        node, op = node_of(variant), OPERATORS[case.op]()
        inputs = {f"i{k}": np.asarray(a) for k, a in enumerate(variant.inputs) if a is not None}
        known = {f"i{k}" for k in (*op.shape_inputs, *variant.known)} & set(inputs)
        steps, plan = lower(node, inputs, known, {f"i{k}" for k in variant.coded})
        assert (steps is not None) == case.native, "the NumPy form is used for other cases than before"
        if steps is None:
            continue
        wanted = op.run(node, variant.inputs)
        if isinstance(steps, Alias):
            np.testing.assert_array_equal(inputs[steps.input].reshape(-1), wanted[0].reshape(-1))
            assert steps.output == "o0"
            continue
        for kernels in VARIANTS:
            results = [execute(steps, plan, node, inputs, program.Program(kernels), coded_matrix, threads) for threads in (1, 2)]
            for found, again, right in zip(*results, wanted, strict=True):
                assert_close(found, right, max(case.tolerance, 1e-5))
                assert found.tobytes() == again.tobytes(), f"{kernels}: another result with two threads"
