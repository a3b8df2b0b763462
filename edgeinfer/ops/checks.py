"""What every operator asks of its node: is the input there, is the axis inside, is the shape concrete. All complaints name the node."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, TypeVar

import numpy as np

from ..errors import ModelFormatError, UnsupportedModelError
from ..graph import Node, TensorSpec
from .base import Alias, Lowering, Op, Step

T = TypeVar("T")

#: The only dtype that native arithmetic knows; everything else takes the NumPy form.
FLOAT = "float32"


def wrong(node: Node, expected: str, found: object) -> ModelFormatError:
    """The error for a node that contradicts itself."""
    return ModelFormatError(f"{node.op} node {node.name!r}: expected {expected}, found {found}")


def unsupported(node: Node, what: str) -> UnsupportedModelError:
    """The error for a node that asks for something valid which edgeinfer does not do."""
    return UnsupportedModelError(f"{node.op} node {node.name!r}: {what} is not supported")


def need(node: Node, items: Sequence[T | None], position: int, role: str) -> T:
    """Input ``position`` of the node, be it a spec or an array; an error if it was left out."""
    item = items[position] if position < len(items) else None
    if item is None:
        raise wrong(node, f"input {position} ({role})", "none")
    return item


def optional(items: Sequence[T | None], position: int) -> T | None:
    """Input ``position`` or None."""
    return items[position] if position < len(items) else None


def named(node: Node, position: int) -> str:
    """Name of input ``position``, ``""`` where it was left out."""
    return node.inputs[position] if position < len(node.inputs) else ""


def extents(spec: TensorSpec) -> tuple[int, ...]:
    """The concrete shape of a spec; symbols must have been replaced before an operator sees them."""
    if any(isinstance(d, str) for d in spec.shape):
        raise ModelFormatError(f"tensor {spec.name!r}: expected a concrete shape, found {spec.shape}")
    return tuple(int(d) for d in spec.shape)


def axis_of(node: Node, axis: int, rank: int) -> int:
    """``axis`` counted from the front."""
    if not -rank <= axis < rank:
        raise wrong(node, f"an axis in [{-rank}, {rank})", axis)
    return axis % rank


def axes_of(node: Node, axes: Sequence[int], rank: int) -> list[int]:
    """Axes counted from the front, in the order given; repeated axes are an error."""
    found = [axis_of(node, int(a), rank) for a in axes]
    if len(set(found)) != len(found):
        raise wrong(node, "axes that differ", list(axes))
    return found


def ints(value: Any) -> list[int]:
    """A setting as a list of ints: one number counts as a list of one."""
    return [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)]


def known(node: Node, value: Any, what: str) -> Any:
    """A setting that must be known when the plan is made, since shapes depend on it."""
    if value is None:
        raise unsupported(node, f"{what} that depends on the data")
    return value


def broadcast(node: Node, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Common shape by ONNX's (NumPy's) multidirectional rule."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise wrong(node, "shapes that broadcast", " and ".join(map(str, shapes))) from None


def outputs(node: Node, *forms: tuple[str, Sequence[int]]) -> list[TensorSpec]:
    """Specs from (dtype, shape) pairs, as many as the node has outputs."""
    if len(node.outputs) > len(forms):
        raise wrong(node, f"at most {len(forms)} outputs", len(node.outputs))
    return [TensorSpec(name, dtype, tuple(int(d) for d in shape)) for name, (dtype, shape) in zip(node.outputs, forms)]  # noqa: B905


def known_values(node: Node, plan: Lowering, positions: Sequence[int]) -> list[np.ndarray | None]:
    """Values of the inputs at ``positions`` as far as the plan knows them, None for all others: what :meth:`Op.setting` reads."""
    return [plan.value(name) if name and i in positions else None for i, name in enumerate(node.inputs)]


class NativeOp(Op):
    """An operator with native steps. :meth:`steps` is asked only where something is to be computed from something."""

    def lower(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        """Nothing runs for an empty output; an output made from an empty input (a sum of nothing) takes the NumPy form."""
        if all(prod(extents(plan.spec(name))) == 0 for name in node.outputs if name):
            return []
        read = [name for i, name in enumerate(node.inputs) if i not in self.shape_inputs]
        if any(prod(extents(plan.spec(name))) == 0 for name in (*read, *node.outputs) if name):
            return None
        return self.steps(node, plan)

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        """Native steps, an alias, or ``None`` for the NumPy form; no tensor is empty here."""
        raise NotImplementedError


def all_float(node: Node, plan: Lowering) -> bool:
    """True if every input and output is float32 and no input is coded: what native arithmetic needs."""
    return all(plan.spec(name).dtype == FLOAT for name in (*node.inputs, *node.outputs) if name) and not any(
        plan.is_coded(name) for name in node.inputs if name
    )
