"""GRU and LSTM, one direction per node.

Normal form (made by the importer from ONNX's W [dirs, gates H, I], R [dirs, gates H, H], B [dirs, 2 gates H]):

* GRU inputs: ``X [T, N, I], W [3H, I], R [3H, H], Wb [3H]?, Rb [3H]?, h0 [1, N, H]?``; gates in ONNX's order z, r, h.
* LSTM inputs: ``X [T, N, I], W [4H, I], R [4H, H], B [4H]?, h0 [1, N, H]?, c0 [1, N, H]?``; gates in ONNX's order i, o, f, c;
  B is the sum of ONNX's two biases.
* Outputs: ``Y [T, 1, N, H], Y_h [1, N, H]`` and, of an LSTM, ``Y_c [1, N, H]``; each may be left out (``""``).
* Attributes: ``hidden_size``; ``direction`` "forward" or "reverse"; GRU: ``linear_before_reset`` (0).

A bidirectional node becomes two nodes whose Y, Y_h, Y_c are joined by Concat on axis 1, 0, 0 (and h0, c0 split on axis 0); ``layout`` 1
becomes Transposes. ``sequence_lens``, peepholes, ``clip``, ``input_forget`` and other activations than ONNX's defaults are not supported.
W and R are coded tensors: W x + Wb of all time steps is one product (step ``conv``) into a workspace, then the step ``gru`` or ``lstm``
runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..graph import Node, TensorSpec
from .activations import Native
from .base import OPERATORS, Alias, Lowering, Step
from .checks import FLOAT, NativeOp, extents, named, need, optional, outputs, unsupported, wrong
from .gemm import product_step

DEFAULT_ACTIVATIONS = {"GRU": ["sigmoid", "tanh"], "LSTM": ["sigmoid", "tanh", "tanh"]}


def panel_floats(rows: int, k: int) -> int:
    """Floats of a whole decoded matrix: ``ei_whole_panels`` of weights.h, blocks of 32 rows."""
    return -(-rows // 32) * 32 * k


def _sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-x)))


class Recurrent(NativeOp):
    """What both kinds share: shapes, direction, the product over all time steps."""

    gates = 0
    #: workspace of the step per image, in vectors of ``hidden`` floats: sums of the gates, h and (LSTM) c
    state_vectors = 0
    #: names of the inputs after R
    roles: tuple[str, ...] = ()

    def _check(self, node: Node) -> None:
        attrs = node.attrs
        if attrs.get("direction", "forward") not in ("forward", "reverse"):
            raise unsupported(node, f"direction {attrs['direction']!r} in one node")
        functions = [str(f).lower() for f in attrs.get("activations") or DEFAULT_ACTIVATIONS[node.op]]
        if functions != DEFAULT_ACTIVATIONS[node.op]:
            raise unsupported(node, f"activations {attrs['activations']}")
        if attrs.get("clip") or attrs.get("layout", 0) or attrs.get("input_forget", 0):
            raise unsupported(node, "clip, layout or input_forget")

    def infer(self, node: Node, specs: Sequence[TensorSpec | None], values: Sequence[np.ndarray | None]) -> list[TensorSpec]:
        self._check(node)
        x, w, r = (need(node, specs, i, role) for i, role in enumerate(("X", "W", "R")))
        shape = extents(x)
        hidden = int(node.attrs.get("hidden_size", extents(r)[-1]))
        rows = self.gates * hidden
        if len(shape) != 3 or extents(w) != (rows, shape[2]) or extents(r) != (rows, hidden):
            raise wrong(node, f"X [T, N, I], W ({rows}, I) and R {(rows, hidden)}", f"{shape}, {w.shape}, {r.shape}")
        for position, role in enumerate(self.roles, 3):
            spec = optional(specs, position)
            form = (rows,) if role.endswith("b") or role == "B" else (1, shape[1], hidden)
            if spec is not None and extents(spec) != form:
                raise wrong(node, f"{role} of shape {form}", spec.shape)
        state = (x.dtype, (1, shape[1], hidden))
        return outputs(node, *((x.dtype, (shape[0], 1, shape[1], hidden)), state, state)[: 2 if self.gates == 3 else 3])

    def _gates(self, node: Node, inputs: Sequence[np.ndarray | None]) -> np.ndarray:
        """W x + bias of all time steps: [T, N, gates * H]."""
        x, w = need(node, inputs, 0, "X"), need(node, inputs, 1, "W")
        bias = optional(inputs, 3)
        y = x.reshape(-1, x.shape[2]) @ w.T
        return np.asarray(y if bias is None else y + bias).reshape(*x.shape[:2], w.shape[0])

    @staticmethod
    def _times(node: Node, steps: int) -> range:
        return range(steps)[::-1] if node.attrs.get("direction", "forward") == "reverse" else range(steps)

    def steps(self, node: Node, plan: Lowering) -> list[Step] | Alias | None:
        self._check(node)
        x, w, r = (plan.spec(name) for name in node.inputs[:3])
        if x.dtype != FLOAT or not plan.is_coded(w.name) or not plan.is_coded(r.name):
            return None
        time, batch, inputs = extents(x)
        rows, hidden = extents(r)
        # the planner knows no rows of a workspace, so distances are given here
        gates = plan.workspace(4 * time * batch * rows)
        product = product_step(x.name, w.name, gates, (time * batch, inputs, rows), Native("none"), named(node, 3), y_ld=rows)
        tensors = {
            "x": gates,
            "panels": plan.workspace(4 * panel_floats(rows, hidden)),
            "state": plan.workspace(4 * batch * self.state_vectors * hidden),
        }
        fields = {"steps": time, "batch": batch, "hidden": hidden, "x_ld": rows, "reverse": int(self._times(node, 2)[0])}
        wanted = dict(zip(("y", "y_h", "y_c"), node.outputs))  # noqa: B905
        if not wanted["y"]:
            wanted["y"] = plan.workspace(4 * time * batch * hidden)
            fields["y_ld"] = hidden
        tensors |= {role: name for role, name in wanted.items() if name}
        for position, role in enumerate(self.roles[1:], 4):
            if named(node, position):
                tensors["bias" if role == "Rb" else role] = named(node, position)
        if self.gates == 3:
            fields["linear_before_reset"] = int(node.attrs.get("linear_before_reset", 0))
        return [product, Step(node.op.lower(), tensors, fields, weights=r.name)]


@OPERATORS.register("GRU")
class GRU(Recurrent):
    """Gated recurrent unit; see the module's docstring for inputs and outputs."""

    gates = 3
    state_vectors = 4
    roles = ("Wb", "Rb", "h0")

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        self._check(node)
        x, r = need(node, inputs, 0, "X"), need(node, inputs, 2, "R")
        gates, rb, h0 = self._gates(node, inputs), optional(inputs, 4), optional(inputs, 5)
        time, batch = x.shape[:2]
        hidden = r.shape[1]
        h = np.zeros((batch, hidden), x.dtype) if h0 is None else h0[0]
        bias = np.zeros(3 * hidden, x.dtype) if rb is None else rb
        y = np.empty((time, 1, batch, hidden), x.dtype)
        for t in self._times(node, time):
            z, reset = np.split(_sigmoid(gates[t, :, : 2 * hidden] + h @ r[: 2 * hidden].T + bias[: 2 * hidden]), 2, axis=1)
            if node.attrs.get("linear_before_reset", 0):
                candidate = reset * (h @ r[2 * hidden :].T + bias[2 * hidden :])
            else:
                candidate = (reset * h) @ r[2 * hidden :].T + bias[2 * hidden :]
            h = (1 - z) * np.tanh(gates[t, :, 2 * hidden :] + candidate) + z * h
            y[t, 0] = h
        return [y, np.array(h[None], dtype=x.dtype)][: len(node.outputs)]


@OPERATORS.register("LSTM")
class LSTM(Recurrent):
    """Long short-term memory; see the module's docstring for inputs and outputs."""

    gates = 4
    state_vectors = 6
    roles = ("B", "h0", "c0")

    def run(self, node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        self._check(node)
        x, r = need(node, inputs, 0, "X"), need(node, inputs, 2, "R")
        gates, h0, c0 = self._gates(node, inputs), optional(inputs, 4), optional(inputs, 5)
        time, batch = x.shape[:2]
        hidden = r.shape[1]
        h = np.zeros((batch, hidden), x.dtype) if h0 is None else h0[0]
        c = np.zeros((batch, hidden), x.dtype) if c0 is None else c0[0]
        y = np.empty((time, 1, batch, hidden), x.dtype)
        for t in self._times(node, time):
            i, o, f, g = np.split(gates[t] + h @ r.T, 4, axis=1)
            c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
            h = _sigmoid(o) * np.tanh(c)
            y[t, 0] = h
        return [y, np.array(h[None], dtype=x.dtype), np.array(c[None], dtype=x.dtype)][: len(node.outputs)]
