"""The 16-lane code, compiled for 8-lane machines: every case of every step, though no CPU here may have AVX-512.

The sources of the avx512 variant are built with AVX2 flags and EI_VEC=16, and run through their table of functions.
"""

import ctypes
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgeinfer.kernels.program import STEP_FIELDS, available_kernels

from .cases import CASES, make_conv
from .harness import run_step

KERNELS = Path(__file__).parents[2] / "cython" / "kernels"
KINDS = list(STEP_FIELDS)
FLAGS = "-std=gnu11 -O2 -fPIC -shared -fno-math-errno -fno-trapping-math -ffp-contract=off -Wno-psabi".split()
WIDE = "-mavx2 -mfma -mf16c -mbmi -mbmi2 -DEI_VARIANT=avx512 -DEI_VARIANT_AVX512 -DEI_VEC=16".split()
ONCE = ("pool.c", "readahead.c", "features.c", "checksum.c")
COUNT = len(KINDS)


class Step(ctypes.Structure):
    """ei_step of steps.h."""

    _fields_ = [
        ("kind", ctypes.c_int32),
        ("t", ctypes.c_void_p * 12),
        ("i", ctypes.c_int64 * 48),
        ("f", ctypes.c_float * 8),
        ("w", ctypes.c_void_p),
    ]


class Share(ctypes.Structure):
    """ei_share of table.h."""

    _fields_ = [("next", ctypes.c_int64), ("threads", ctypes.c_int)]


RUN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Step), ctypes.POINTER(Share), ctypes.c_void_p)
UNITS = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.POINTER(Step))
SCRATCH = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.POINTER(Step))


class Table(ctypes.Structure):
    """ei_kernels of table.h."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("decode_tile", ctypes.c_void_p),
        ("run", RUN * COUNT),
        ("units", UNITS * COUNT),
        ("scratch", SCRATCH * COUNT),
    ]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A stand-in for Program over the table of the 16-lane build."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc")
    if platform.machine() not in ("x86_64", "AMD64") or "avx2" not in available_kernels():
        pytest.skip("no AVX2")
    library = tmp_path_factory.mktemp("wide") / "wide.so"
    sources = [str(p) for p in sorted(KERNELS.glob("*.c")) if p.name not in ONCE]
    subprocess.run([compiler, *FLAGS, *WIDE, *sources, "-lm", "-o", str(library)], check=True)
    table = Table.in_dll(ctypes.CDLL(str(library)), "ei_kernels_avx512")
    assert table.name == b"avx512"

    class Program:
        def __init__(self, name):
            assert name == "wide"
            self.places = {}

        def set_slot(self, slot, address, nbytes):
            self.places[slot] = address

        def append(self, kind, tensors, ints, floats, weights=None):
            roles, int_names, float_names = STEP_FIELDS[kind]
            self.step = Step(kind=KINDS.index(kind), w=weights.address if weights else None)
            for role, (slot, offset) in tensors.items():
                self.step.t[roles.index(role)] = self.places[slot] + offset
            for name, value in ints.items():
                self.step.i[int_names.index(name)] = int(value)
            for name, value in floats.items():
                self.step.f[float_names.index(name)] = value
            function = table.scratch[self.step.kind]
            self.scratch_bytes = (function(self.step) + 63) // 64 * 64 if function else 64
            assert table.units[self.step.kind](self.step) >= 0

        def set_scratch(self, address, nbytes):
            self.scratch = address

        def run(self, first, last, threads):
            status = table.run[self.step.kind](self.step, Share(), self.scratch)
            assert status == 0, f"status {status}"
            return last

    return Program


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_step(kind, wide):
    for case in CASES[kind]():
        got = run_step(case.kind, case.inputs, case.outputs, case.ints, case.floats, case.weights, "wide", program=wide)
        case.check(got)


def test_sixteen_lanes_give_the_bits_of_eight(wide):
    """Products and their order are the same, only their grouping into vectors is not."""
    cases = [make_conv("", 5, 1, 1, 700, 70), make_conv("", 1, 9, 9, 40, 33, (3, 3), pads=(1, 1, 1, 1), k_chunk=144)]
    cases += [make_conv("", 1, 9, 9, 70, 33, (3, 3), pads=(1, 1, 1, 1), algorithm=name) for name in ("winograd_2_3", "winograd_4_3")]
    for case in cases:
        arguments = case.kind, case.inputs, case.outputs, case.ints, case.floats, case.weights
        mine, eight = run_step(*arguments, "wide", program=wide)["y"], run_step(*arguments, "avx2")["y"]
        np.testing.assert_array_equal(mine, eight)
