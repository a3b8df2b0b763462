"""What an operator is to the planner: shapes, a NumPy form, and, for what costs time, native steps.

An operator class has no state. ``infer`` gives the shapes of its outputs, ``run`` computes them with NumPy (the reference, the
constant folder and the fallback), ``lower`` turns the node into native steps or says that there are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..errors import UnsupportedModelError
from ..graph import Node, TensorSpec
from ..registry import Registry


@dataclass(frozen=True)
class Step:
    """One native step, tensors still by name. Kinds, roles and fields: ``cython/kernels/steps.h``.

    ``tensors``: role -> tensor name. ``ints``/``floats``: field -> value; fields named ``<role>_ld`` are filled in by the
    planner. ``weights``: name of the coded tensor, or ``None``.
    """

    kind: str
    tensors: dict[str, str]
    ints: dict[str, int] = field(default_factory=dict)
    floats: dict[str, float] = field(default_factory=dict)
    weights: str | None = None


@dataclass(frozen=True)
class Alias:
    """The output is the input under another shape: same bytes, same order, nothing runs."""

    output: str
    input: str


class Lowering(Protocol):
    """What the planner offers to :meth:`Op.lower`. All shapes are concrete ints here."""

    def spec(self, name: str) -> TensorSpec:
        """Concrete spec of a tensor."""

    def value(self, name: str) -> np.ndarray | None:
        """The value of a tensor that is known when the plan is made (constants that are not coded, shape arithmetic), else None."""

    def is_coded(self, name: str) -> bool:
        """True if the tensor is a constant held as coded tiles (to be named in ``Step.weights``, never in ``Step.tensors``)."""

    def literal(self, array: np.ndarray) -> str:
        """Keep a small array in the plan; returns a tensor name for ``Step.tensors``."""

    def workspace(self, nbytes: int) -> str:
        """Scratch that lives while this node runs; returns a tensor name for ``Step.tensors``."""


class Op:
    """Base of all operators; see the module's docstring. Subclasses are registered under their ONNX names."""

    #: positions of inputs whose *values* decide the output shape (shape, axes, pads, repeats ...)
    shape_inputs: tuple[int, ...] = ()
    #: True if output 0 is input 0 under another shape
    is_view = False
    #: True if the operator works on [N, spatial..., C] where ONNX has [N, C, spatial...]
    channels_last = False
    #: True if the outputs depend on the shapes of the inputs alone: run may be given any array of that shape
    reads_shapes_only = False

    def infer(
        self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]
    ) -> list[TensorSpec]:
        """Specs of the outputs from concrete specs (and known values) of the inputs. Raises ModelFormatError on nonsense."""
        raise NotImplementedError

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        """Compute the outputs with NumPy."""
        raise NotImplementedError

    def lower(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        """Native steps, an alias, or ``None``: run the NumPy form. Nodes whose inputs are all known are never lowered."""
        return None

    @staticmethod
    def setting(node: Node, attribute: str, values: Sequence[np.ndarray | None], position: int, default: Any = None) -> Any:
        """A setting that is an attribute where constant and an input where computed; arrays come back as lists."""
        if attribute in node.attrs:
            return node.attrs[attribute]
        if position < len(values) and values[position] is not None:
            return np.asarray(values[position]).tolist()
        return default


OPERATORS: Registry[Op] = Registry("operator", UnsupportedModelError)
