"""The network as edgeinfer runs it: tensors by name, nodes in execution order. Plain data, no behaviour, no arrays.

Operators keep their ONNX names and, but for what is said here, the meaning and attribute names of opset 21. The importer has
already normalised everything, so at run time there is one form only:

* Spatial operators (Conv, MaxPool, AveragePool, GlobalMaxPool, GlobalAveragePool, LRN, BatchNormalization, Resize) are
  **channels-last**: ``[N, spatial..., C]``. The importer inserts Transpose where a network needs another order and cancels what it can.
* ``Conv`` inputs: ``X, W, B?, residual?``. W has logical shape ``[O, kernel..., I / group]``. Attributes ``strides``,
  ``dilations``, ``pads`` (begins then
  ends), ``group``, ``kernel_shape``, all present and explicit.
* ``Gemm`` inputs: ``X, W, B?, residual?``; X is ``[..., K]``, W a constant ``[M, K]``, the result ``[..., M]``. Every product with
  a constant matrix has this form;
  ``MatMul`` is left for products of two activations, with attribute ``alpha`` (a factor, default 1).
* Conv and Gemm may carry ``activation`` (an ONNX operator name), ``alpha``/``beta``/``min``/``max`` of that activation: it is applied after
  the sum of product, bias and residual. BatchNormalization, Add, Sub, Mul, Div may carry it too.
* ``BatchNormalization`` inputs: ``X, scale, shift`` (statistics already folded into the two vectors): ``X * scale + shift``.
* ``Gather`` with a coded table, ``GRU``/``LSTM`` W and R: constants, shapes as in ONNX (GRU/LSTM: one direction each, see
  ops/recurrent.py).
* What ONNX moved from attributes to inputs over time (axes, pads, starts, ends, split, min, max, shape, repeats) is an **input**
  where it is computed at
  run time and an **attribute** (list of ints, floats) where it is constant. An operator reads both through ``ops.base.Op.setting``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Dim = int | str


@dataclass(frozen=True)
class TensorSpec:
    """Name, NumPy dtype name and shape of a tensor; a string in the shape is a symbol (``"N"`` is usually the batch)."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]


@dataclass(frozen=True)
class Node:
    """One operator application. ``""`` in ``inputs`` means: left out. ``attrs`` holds JSON values only."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """A network: typed inputs and outputs, nodes in an order in which they can run.

    ``batch`` names the symbol that is the batch axis (axis 0 of every input and output that has it), or is ``None``
    where the network has a fixed batch; ``notes`` are the importer's remarks for the user (why a batch was kept, and the like).
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    nodes: tuple[Node, ...]
    batch: str | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The graph as JSON values, the form that the container stores."""
        spec = lambda t: [t.name, t.dtype, list(t.shape)]  # noqa: E731
        return {
            "name": self.name,
            "inputs": [spec(t) for t in self.inputs],
            "outputs": [spec(t) for t in self.outputs],
            "nodes": [[n.op, n.name, list(n.inputs), list(n.outputs), n.attrs] for n in self.nodes],
            "batch": self.batch,
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Graph:
        """Inverse of :meth:`to_json`. Raises KeyError, TypeError or ValueError where the value is not of that form."""
        spec = lambda t: TensorSpec(str(t[0]), str(t[1]), tuple(t[2]))  # noqa: E731
        return cls(
            name=str(value["name"]),
            inputs=tuple(spec(t) for t in value["inputs"]),
            outputs=tuple(spec(t) for t in value["outputs"]),
            nodes=tuple(Node(str(n[0]), str(n[1]), tuple(n[2]), tuple(n[3]), dict(n[4])) for n in value["nodes"]),
            batch=value["batch"],
            notes=tuple(value["notes"]),
        )
