"""Runs single steps: weights as raw float tiles laid out here, independent of the coders; outputs guarded on every side."""

import ctypes

import numpy as np

from edgeinfer.kernels.program import Program

GUARD = 64
UNTOUCHED = np.float32(12345.678)


class Plane(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("coder", "bits", "lanes", "extra")),
        *((name, ctypes.c_void_p) for name in ("model", "at", "bytes")),
        ("n_bytes", ctypes.c_uint64),
    ]


class Weights(ctypes.Structure):
    """ei_weights of weights.h."""

    _fields_ = [
        ("rows", ctypes.c_int64),
        ("k", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("groups", "k_chunk", "n_planes", "base_only", "table_len")),
        *((name, ctypes.c_void_p) for name in ("table", "base_table", "row_scale")),
        ("plane", Plane * 2),
    ]


class RawWeights:
    """A matrix (rows, k) as tiles of plain floats, with what Program asks of a coded tensor."""

    def __init__(self, matrix, groups=1, k_chunk=256, row_scale=None):
        rows, k = matrix.shape
        self.matrix = np.asarray(matrix, np.float32)
        tiles = []
        for group in range(groups):
            part = self.matrix[rows // groups * group : rows // groups * (group + 1)]
            for first in range(0, len(part), 32):
                block = part[first : first + 32]
                padded = np.zeros(((len(block) + 7) // 8 * 8, k), np.float32)
                padded[: len(block)] = block
                tiles += [padded[:, at : at + k_chunk].T.ravel() for at in range(0, k, k_chunk)]
        self.bytes = np.concatenate([*tiles, np.zeros(16, np.float32)])
        self.scale = None if row_scale is None else np.asarray(row_scale, np.float32)
        self.struct = Weights(rows=rows, k=k, groups=groups, k_chunk=k_chunk, n_planes=1)
        self.struct.plane[0].bytes = self.bytes.ctypes.data
        self.struct.plane[0].n_bytes = self.bytes.nbytes
        if self.scale is not None:
            self.struct.row_scale = self.scale.ctypes.data
        self.address = ctypes.addressof(self.struct)

    @property
    def values(self):
        """The matrix with its row scales, float64."""
        return self.matrix.astype(np.float64) * (1 if self.scale is None else self.scale.astype(np.float64)[:, None])


def aligned(nbytes):
    """Zeroed bytes whose address is a multiple of 64."""
    memory = np.zeros(nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + nbytes]


def run_step(kind, inputs, outputs, ints, floats, weights=None, kernels="plain", threads=1, program=Program):
    """Run one step. ``inputs``: role -> array (an input that is also written must be in outputs too); ``outputs``: role -> float count or
    a starting array. Returns role -> flat array of the whole output; fails where the step wrote around it."""
    program = program(kernels)
    slots, keep, written, tensors = 0, [], {}, {}
    for role, array in inputs.items():
        array = np.ascontiguousarray(array)
        keep.append(array)
        program.set_slot(slots, array.ctypes.data, array.nbytes)
        tensors[role] = (slots, 0)
        slots += 1
    for role, start in outputs.items():
        start = np.full(start, UNTOUCHED, np.float32) if isinstance(start, int) else np.ascontiguousarray(start).ravel()
        whole = np.concatenate([np.full(GUARD, 77, start.dtype), start, np.full(GUARD, 77, start.dtype)])
        written[role] = whole
        program.set_slot(slots, whole.ctypes.data, whole.nbytes)
        tensors[role] = (slots, GUARD * start.itemsize)
        slots += 1
    program.append(kind, tensors, ints, floats, weights)
    stride = program.scratch_bytes
    scratch = aligned(stride * threads + 64)
    scratch[:] = 0xFF  # NaN: nothing may be read before it is written
    program.set_scratch(scratch.ctypes.data, stride)
    assert program.run(0, 1, threads) == 1
    assert (scratch[stride * threads :] == 0xFF).all(), "wrote behind the scratch"
    for role, whole in written.items():
        assert (whole[:GUARD] == 77).all() and (whole[-GUARD:] == 77).all(), f"wrote around {role}"
    return {role: whole[GUARD:-GUARD] for role, whole in written.items()}
