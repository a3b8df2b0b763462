"""One or more cases for every quantizer and coder; a class that is registered without one fails the walks by name."""

from __future__ import annotations

import numpy as np
import pytest

from edgeinfer.coders import CODERS
from edgeinfer.quantizers import QUANTIZERS

QUANTIZER_OPTIONS: dict[str, list[dict]] = {
    "none": [{"dtype": "float32"}, {"dtype": "float16"}, {"dtype": "bfloat16"}],
    "uniform": [{"bits": 2}, {"bits": 5, "step": 0.4, "dead_zone": 0.5}, {"bits": 8, "row_scale": False}],
    "kmeans": [{"bits": bits} for bits in range(1, 9)],
    "sign": [{"bits": bits} for bits in range(2, 9)] + [{"error_bound": 0.2}],
}
CODER_OPTIONS: dict[str, list[dict]] = {
    "raw": [{}],
    "packed": [{}],
    "huffman": [{"layout": "planes"}, {"layout": "streams"}],
    "rans": [{}],
    "gaps": [{}],
}

#: rows, k, groups, k_chunk
SHAPES = [
    (1, 1, 1, None),
    (1, 1300, 1, None),
    (7, 9, 1, None),
    (16, 33, 1, None),
    (24, 511, 1, None),
    (32, 512, 1, None),
    (33, 512, 1, None),
    (70, 9, 2, None),
    (70, 1300, 1, 256),
    (96, 100, 3, 7),
]


def quantizers():
    """Every quantizer with every set of options of its case."""
    return [
        pytest.param(name, options, id=f"{name}-{'-'.join(map(str, (options or {}).values()))}")
        for name in QUANTIZERS
        for options in QUANTIZER_OPTIONS.get(name, [None])
    ]


def make(registry, cases, name, options=None):
    """An instance of a registered class; fails the test where it has no case."""
    if name not in cases:
        pytest.fail(f"{registry.kind} {name!r} has no case in tests/coders/cases.py")
    return registry[name](**(cases[name][0] if options is None else options))


def coder(name, options=None):
    return make(CODERS, CODER_OPTIONS, name, options)


def coders():
    """Every coder with every set of options of its case."""
    return [
        pytest.param(name, options, id=f"{name}-{'-'.join(map(str, (options or {}).values()))}")
        for name in CODERS
        for options in CODER_OPTIONS.get(name, [None])
    ]


def quantizer(name, options):
    return make(QUANTIZERS, QUANTIZER_OPTIONS, name, options)


def weights(rows: int, k: int, pruned: bool = False, seed: int = 5) -> np.ndarray:
    """Gaussian rows of different spread, float32; ``pruned``: nine of ten are zero."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((rows, k)) * random.uniform(0.02, 2.0, (rows, 1))
    if pruned:
        values[random.random((rows, k)) < 0.9] = 0
    return values.astype(np.float32)
