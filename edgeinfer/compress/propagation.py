"""What the layers of a network see while it is compressed: samples go through it node by node, through weights as they were quantized.

A layer is compensated for the inputs it will get, so its inputs come from layers that are quantized already, and a sample moves on
only when the weights of its next node are known. Nodes run in their NumPy forms. Samples run in small groups, so that the largest
temporary is one group's; what is kept are the living tensors of all samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from ..graph import Graph, Node
from ..ops import OPERATORS
from ..ops.activations import activate
from ..ops.conv import pad_spatial, window_of, windows
from ..quantizers import Quantized
from .draft import Weights
from .roles import Matrix

#: rows of inputs that are kept of a layer, all samples together (about: rounded up to whole rows of each sample)
POSITIONS = 4096
#: elements of the inputs of a group of samples: one image of 224 x 224, or many small ones
GROUP = 1 << 18
#: weights of a Gemm that are decoded at a time
SLAB = 1 << 22


class Propagation:
    """Samples on their way through a network.

    Args:
        graph, weights, roles: as :func:`edgeinfer.compress.roles.matrices` gives them; weights are asked for in their order.
        samples: arrays by input name, samples along the first axis.
        even: every sample gets the same energy in every layer, whatever its scale (made samples).
    """

    def __init__(self, graph: Graph, weights: Weights, roles: Mapping[str, Matrix], samples: Mapping[str, np.ndarray], even: bool) -> None:
        self._graph = graph
        self._weights = weights
        self._roles = roles
        self._even = even
        self._coded: dict[str, Quantized] = {}
        self._next = 0
        self._last = {name: i for i, node in enumerate(graph.nodes) for name in node.inputs}
        self._user = {name: i for i, node in reversed(list(enumerate(graph.nodes))) for name in node.inputs}
        self.samples = len(next(iter(samples.values())))
        largest = max(prod(a.shape[1:]) for a in samples.values())
        size = 1 if graph.batch is None else max(1, min(self.samples, GROUP // max(largest, 1)))
        self._groups = [{name: a[i : i + size] for name, a in samples.items()} for i in range(0, self.samples, size)]
        self._generator = np.random.default_rng(0)

    def inputs(self, name: str) -> list[np.ndarray] | None:
        """What the rows of a matrix are multiplied with, float32 (n, k) for each of its groups; ``None`` where it is no product with
        inputs.

        All weights of earlier nodes must have been recorded.
        """
        role = self._roles[name]
        node = self._graph.nodes[self._user[name]]
        if role.depthwise or node.inputs.index(name) != 1 or node.op not in ("Conv", "Gemm", "GRU", "LSTM"):
            return None
        self._advance(self._user[name])
        per_sample = -(-POSITIONS // self.samples)
        found: list[list[np.ndarray]] = [[] for _ in range(role.groups)]
        for values in self._groups:
            x = values[node.inputs[0]]
            if not isinstance(x, np.ndarray) or x.dtype != np.float32:
                return None
            if node.op in ("GRU", "LSTM"):
                x = x.swapaxes(0, 1)  # [T, N, k]: samples first
            for sample in range(len(x)) if x.ndim > 1 else ():
                one = x[sample : sample + 1]
                for part, rows in zip(found, self._rows(node, one, self._weights[name], role.groups, per_sample), strict=True):
                    if self._even:
                        power = np.sqrt(np.mean(np.square(rows, dtype=np.float64)) * len(rows))
                        rows = rows / np.float32(power) if power > 0 else rows
                    part.append(rows)
        return [np.concatenate(part) for part in found] if all(found) else None

    def record(self, name: str, quantized: Quantized) -> None:
        """The weights with which the network goes on."""
        self._coded[name] = quantized

    def _rows(self, node: Node, x: np.ndarray, w: np.ndarray, groups: int, most: int) -> list[np.ndarray]:
        """At most ``most`` rows of the matrix that one sample is multiplied as, for each group."""
        if node.op != "Conv":
            rows = x.reshape(-1, x.shape[-1])
            return [rows[self._generator.choice(len(rows), most, replace=False)] if len(rows) > most else rows]
        window = window_of(node, x.ndim - 2, w.shape[1:-1])
        padded = pad_spatial(x, window.begins, window.ends)
        out = [(n - r) // s + 1 for n, r, s in zip(padded.shape[1:-1], window.reach, window.strides, strict=True)]
        taps = windows(padded, window, out)
        count = prod(out)
        places = np.arange(count) if count <= most else np.sort(self._generator.choice(count, most, replace=False))
        columns = taps[(0, *np.unravel_index(places, out))]
        channels = w.shape[-1]
        return [columns[..., g * channels : (g + 1) * channels].reshape(len(places), -1) for g in range(groups)]

    def _advance(self, node: int) -> None:
        """Run all nodes before ``node``."""
        for number in range(self._next, node):
            done = {name for name in self._graph.nodes[number].inputs if self._last[name] == number}
            self._run(self._graph.nodes[number], done)
            for name in done:
                self._coded.pop(name, None)
        self._next = max(self._next, node)

    def _run(self, node: Node, done: set[str]) -> None:
        """Run a node for all samples; inputs in ``done`` are given up group by group, so that input and output are never there for all."""
        large = node.op == "Gemm" and node.inputs[1] in self._coded and self._weights[node.inputs[1]].size > SLAB
        if large:
            self._run_large(node)
            for values in self._groups:
                for name in done:
                    values.pop(name, None)
            return
        decoded = {name: self._coded[name].decode().reshape(self._weights[name].shape) for name in node.inputs if name in self._coded}
        for values in self._groups:
            results = OPERATORS[node.op]().run(node, [self._value(name, values, decoded) for name in node.inputs])
            for name in done:
                values.pop(name, None)
            values.update((name, result) for name, result in zip(node.outputs, results, strict=False) if name)

    def _run_large(self, node: Node) -> None:
        """A Gemm slab by slab of rows, each decoded once for all samples: the decoded matrix would weigh as much as the file."""
        quantized, (rows, k) = self._coded[node.inputs[1]], self._weights[node.inputs[1]].shape
        shapes = [values[node.inputs[0]].shape for values in self._groups]
        x = np.concatenate([values[node.inputs[0]].reshape(-1, k) for values in self._groups])
        y = np.empty((len(x), rows), np.float32)
        step = max(1, SLAB // k)
        for first in range(0, rows, step):
            y[:, first : first + step] = x @ quantized.decode(first, min(first + step, rows)).T
        first = 0
        for values, shape in zip(self._groups, shapes, strict=True):
            last = first + prod(shape[:-1])
            part = y[first:last].reshape(*shape[:-1], rows)
            for name in node.inputs[2:]:
                addend = self._value(name, values, {})
                part = part if addend is None else part + addend
            values[node.outputs[0]] = activate(node, part)
            first = last

    def _value(self, name: str, values: Mapping[str, np.ndarray], decoded: Mapping[str, np.ndarray]) -> np.ndarray | None:
        if not name:
            return None
        return decoded[name] if name in decoded else self._weights[name] if name in self._weights else values[name]
