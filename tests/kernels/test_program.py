"""Programs: built by keyword, stopped between steps, run by many callers, and in a child after fork."""

import os
import threading

import numpy as np
import pytest

from edgeinfer.errors import KernelError
from edgeinfer.kernels.program import STEP_FIELDS, Program

from .cases import make_conv
from .harness import aligned, run_step

CHAIN = 5


def chain():
    """A program that adds one, CHAIN times, to 100 000 numbers, and what it writes to."""
    program, x = Program(None), np.zeros(100_000, np.float32)
    ones = np.ones(1, np.float32)
    program.set_slot(0, x.ctypes.data, x.nbytes)
    program.set_slot(1, ones.ctypes.data, ones.nbytes)
    dims = {f"d{j}": 1 for j in range(5)} | {"d5": x.size, "sa5": 1, "sb5": 0}
    for _ in range(CHAIN):
        program.append("binary", {"a": (0, 0), "b": (1, 0), "y": (0, 0)}, dims, {})
    scratch = aligned(program.scratch_bytes * 4)
    program.set_scratch(scratch.ctypes.data, program.scratch_bytes)
    return program, x, (ones, scratch)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_runs_ranges_of_steps(threads):
    program, x, keep = chain()
    assert len(program) == CHAIN
    assert program.run(0, 2, threads) == 2
    assert (x == 2).all()
    assert program.run(2, CHAIN, threads) == CHAIN
    assert (x == CHAIN).all()
    with pytest.raises(IndexError):
        program.run(0, CHAIN + 1, threads)


def test_stop_word_ends_a_run_before_the_next_step():
    import ctypes

    program, x, keep = chain()
    word = ctypes.c_int32.from_address(program.stop_address)
    word.value = 1
    assert program.run(0, CHAIN, 2) == 0
    assert (x == 0).all()
    word.value = 0
    assert program.run(0, CHAIN, 2) == CHAIN
    assert (x == CHAIN).all()


def test_times_of_steps():
    program, x, keep = chain()
    program.run(0, CHAIN, 1)
    assert program.nanoseconds == [0] * CHAIN
    program.profile = True
    program.run(0, CHAIN, 1)
    assert all(t > 0 for t in program.nanoseconds)


def test_many_callers_at_a_time():
    """Each caller has its own memory; the pool serves one at a time, the others work alone, all get the same bits."""
    case = make_conv("", 1, 20, 20, 32, 64, (3, 3), pads=(1, 1, 1, 1))
    arguments = case.kind, case.inputs, case.outputs, case.ints, case.floats, case.weights
    expected, wrong = run_step(*arguments, "plain")["y"].tobytes(), []

    def caller():
        for _ in range(40):
            if run_step(*arguments, "plain", threads=3)["y"].tobytes() != expected:
                wrong.append(1)

    callers = [threading.Thread(target=caller) for _ in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(120)
    assert not any(thread.is_alive() for thread in callers)
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_child_after_fork_has_a_pool_of_its_own():
    program, x, keep = chain()
    program.run(0, CHAIN, 3)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            program.run(0, CHAIN, 3)
            code = 0 if (x == 2 * CHAIN).all() and len(os.listdir("/proc/self/task")) > 1 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    program.run(0, CHAIN, 3)
    assert (x == 2 * CHAIN).all(), "the child's memory is its own"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kind": "convolve"}, "unknown kind of step 'convolve'"),
        ({"ints": {"row": 1}}, "unary has no integer 'row'"),
        ({"floats": {"slope": 1.0}}, "unary has no float 'slope'"),
        ({"tensors": {"x": (0, 0), "y": (0, 0), "z": (0, 0)}}, "unary has no tensor 'z'"),
        ({"tensors": {"x": (0, 0)}}, "unary needs a tensor 'y'"),
        ({"tensors": {"x": (0, 0), "y": (0, -4)}}, "negative"),
        ({"kind": "conv"}, "conv needs coded weights"),
    ],
)
def test_step_that_cannot_be_is_refused_by_name(change, message):
    step = {"kind": "unary", "tensors": {"x": (0, 0), "y": (0, 0)}, "ints": {}, "floats": {}} | change
    with pytest.raises(ValueError, match=message):
        Program("plain").append(step["kind"], step["tensors"], step["ints"], step["floats"])


def test_memory_that_is_missing_is_an_error():
    program = Program("plain")
    program.append("fill", {"y": (3, 8)}, {"count": 1}, {"value": 1.0})
    scratch = aligned(program.scratch_bytes)
    with pytest.raises(KernelError, match="slot 3 has no memory"):
        program.set_scratch(scratch.ctypes.data, scratch.nbytes)
        program.run(0, 1)
    y = np.zeros(1, np.float32)
    program.set_slot(3, y.ctypes.data, y.nbytes)
    with pytest.raises(KernelError, match="outside slot 3"):
        program.run(0, 1)
    with pytest.raises(ValueError, match="64 bytes"):
        program.set_scratch(scratch.ctypes.data + 4, 64)


def test_every_field_of_every_kind_has_a_name_of_its_own():
    for kind, lists in STEP_FIELDS.items():
        for names in lists:
            assert len(names) == len(set(names)), kind
