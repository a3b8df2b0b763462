"""Operators: one class per ONNX operator (or per family), found by name in :data:`OPERATORS`.

Importing the package fills the registry; it needs NumPy only.
"""

from . import activations, arithmetic, conv, gather, gemm, move, normalize, pooling, recurrent, reduce, resize, shape
from .base import OPERATORS, Alias, Lowering, Op, Step

__all__ = [
    "OPERATORS",
    "Alias",
    "Lowering",
    "Op",
    "Step",
    "activations",
    "arithmetic",
    "conv",
    "gather",
    "gemm",
    "move",
    "normalize",
    "pooling",
    "recurrent",
    "reduce",
    "resize",
    "shape",
]
