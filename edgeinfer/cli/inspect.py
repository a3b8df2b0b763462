"""``edgeinfer inspect``: what a container holds, layer by layer; whether it is whole; how far it is from the network it was made of."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..container import Entry, Reader
from ..errors import ModelFormatError
from ..graph import Graph
from ..sizes import format_size
from .output import Progress, add_json_argument, check_writable, report, table

SUMMARY = "Show a container: per layer its shape, quantizer, coder, bits per weight, size and error bound; totals; the importer's notes."
EXAMPLE = """  edgeinfer inspect model.edge --verify
  edgeinfer inspect model.edge --compare model.onnx --json report.json"""


#: weights compared at a time
CHUNK = 1 << 18
#: tensors that a message names before it counts the rest
NAMED = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.edge")
    parser.add_argument("--verify", action="store_true", help="read every byte and check it against the checksums and the digest")
    parser.add_argument("--compare", metavar="MODEL.onnx", help="measure error and SNR of each layer against the weights of the ONNX file")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    check_writable(args.json)
    with Reader(args.model) as reader:
        graph, entries = reader.graph, dict(reader.entries)
        if args.verify:
            reader.verify()
    users = _users(graph)
    layers = [_layer(entry, users.get(name, "")) for name, entry in entries.items()]
    compared = None
    if args.compare:
        errors, compared = _compare(args.model, args.compare)
        for layer in layers:
            layer.update(errors.get(layer["name"], {}))
    weights = sum(entry.weights for entry in entries.values() if entry.dtype == "float32")
    nbytes = sum(entry.nbytes for entry in entries.values())
    totals = {"fp32_bytes": 4 * weights, "bytes": nbytes, "ratio": 4 * weights / nbytes if nbytes else None, "weights": weights}
    document: dict[str, Any] = {"model": graph.name, "layers": layers, "totals": totals, "notes": list(graph.notes)}
    document["inputs"] = [{"name": t.name, "dtype": t.dtype, "shape": list(t.shape)} for t in graph.inputs]
    document["outputs"] = [{"name": t.name, "dtype": t.dtype, "shape": list(t.shape)} for t in graph.outputs]
    if compared is not None:
        document["compared"] = compared
    if args.verify:
        document["verified"] = True
    report(args, document, lambda: _text(args, document, entries))


def _users(graph: Graph) -> dict[str, str]:
    """Constant -> operator of the first node that reads it."""
    users: dict[str, str] = {}
    for node in graph.nodes:
        for name in node.inputs:
            users.setdefault(name, node.op)
    return users


def _layer(entry: Entry, op: str) -> dict[str, Any]:
    return {
        "name": entry.name,
        "op": op,
        "shape": list(entry.shape),
        "quantizer": None if entry.is_plain else entry.quantizer,
        "coder": None if entry.is_plain else entry.coder,
        "bits_per_weight": entry.bits_per_weight,
        "bytes": entry.nbytes,
        "max_error": None if entry.is_plain else entry.max_error,
    }


def _compare(model: str, source: str) -> tuple[dict[str, dict[str, float | None]], dict[str, Any]]:
    """Per coded tensor, and of all together, the error against the fp32 weights of ``source`` after the importer's passes.

    One tensor is decoded at a time. Raises ModelFormatError where the tensors of the two files are not the same ones.
    """
    from ..compress.importer import import_model
    from ..compress.roles import matrices
    from ..runtime.plan import choose_kernels

    _, weights, _ = matrices(*import_model(source))
    kernels = choose_kernels()
    errors = {}
    total = _Error()
    with Reader(model) as reader, Progress("comparing") as progress:
        _check_same_tensors(model, reader.entries, source, weights)
        coded = [entry for entry in reader.entries.values() if not entry.is_plain]
        for done, entry in enumerate(coded):
            progress(done, len(coded), entry.name)
            # let go of each: weights that passes changed are arrays, not views into the file
            error = _difference(weights.pop(entry.name), reader.decode(entry.name, kernels))
            if not math.isfinite(error.power):
                raise ModelFormatError(f"{source}: weights {entry.name!r}: expected finite numbers, found others")
            errors[entry.name] = error.to_json()
            total.add(error)
    return errors, {"model": source, "tensors": len(coded), "weights": total.weights, **total.to_json()}


@dataclass
class _Error:
    """Differences of weights to the fp32 ones: the largest, their sum of squares, and that of the fp32 weights (``power``)."""

    weights: int = 0
    largest: float = 0.0
    squares: float = 0.0
    power: float = 0.0

    def add(self, other: _Error) -> None:
        self.weights += other.weights
        self.largest = max(self.largest, other.largest)
        self.squares += other.squares
        self.power += other.power

    def to_json(self) -> dict[str, float | None]:
        """``snr_db`` is ``None`` where it is no number: nothing differs, or all fp32 weights are 0."""
        return {
            "measured_max_error": self.largest,
            "rms_error": math.sqrt(self.squares / self.weights) if self.weights else 0.0,
            "relative_rms_error": math.sqrt(self.squares / self.power) if self.power else 0.0,
            "snr_db": 10 * math.log10(self.power / self.squares) if self.power and self.squares else None,
        }


def _difference(truth: np.ndarray, decoded: np.ndarray) -> _Error:
    truth, decoded = truth.reshape(-1), decoded.reshape(-1)
    found = _Error()
    for first in range(0, truth.size, CHUNK):
        expected = truth[first : first + CHUNK].astype(np.float64)
        difference = decoded[first : first + CHUNK] - expected
        found.add(_Error(expected.size, float(np.abs(difference).max()), float(difference @ difference), float(expected @ expected)))
    return found


def _check_same_tensors(model: str, entries: Mapping[str, Entry], source: str, weights: Mapping[str, np.ndarray]) -> None:
    shapes = {name: tuple(entry.shape) for name, entry in entries.items()}
    found = {name: array.shape for name, array in weights.items()}
    problems = {
        f"not in {source}": [repr(name) for name in shapes if name not in found],
        f"not in {model}": [repr(name) for name in found if name not in shapes],
        "of another shape": [
            f"{name!r} (expected {list(shape)}, found {list(found[name])})"
            for name, shape in shapes.items()
            if found.get(name, shape) != shape
        ],
    }
    if any(problems.values()):
        text = "; ".join(f"{what}: {_some(names)}" for what, names in problems.items() if names)
        raise ModelFormatError(f"{source}: expected the tensors of {model}, found those of another network: {text}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _text(args: argparse.Namespace, document: dict[str, Any], entries: dict[str, Entry]) -> str:
    header = ["layer", "operator", "shape", "quantizer", "coder", "bits/weight", "ratio", "bytes", "max error"]
    if args.compare:
        header += ["measured", "rms", "SNR, dB"]
    rows = []
    plain = [layer for layer in document["layers"] if layer["quantizer"] is None]
    for layer in document["layers"]:
        if layer["quantizer"] is None:
            continue
        bits = layer["bits_per_weight"]
        row = [layer["name"], layer["op"], "x".join(map(str, layer["shape"])), layer["quantizer"], layer["coder"]]
        row += [f"{bits:.2f}", f"{32 / bits:.1f}" if bits else "-", str(layer["bytes"]), f"{layer['max_error']:.2e}"]
        if args.compare:
            row += [f"{layer['measured_max_error']:.2e}", f"{layer['rms_error']:.2e}", _decibels(layer)]
        rows.append(row)
    totals = document["totals"]
    lines = [table(header, rows, left=5)]
    if plain:
        lines.append(f"and {len(plain)} small constants kept as they are, {format_size(sum(layer['bytes'] for layer in plain))}")
    ratio = f", {totals['ratio']:.1f} times smaller" if totals["ratio"] else ""
    lines.append(
        f"total: {totals['weights']} weights, {format_size(totals['fp32_bytes'])} as fp32, {format_size(totals['bytes'])} here{ratio}"
    )
    if args.compare:
        found = document["compared"]
        lines.append(
            f"against {args.compare}: {found['weights']} coded weights, largest error {found['measured_max_error']:.2e}, "
            f"rms {found['rms_error']:.2e}, SNR in dB {_decibels(found)}"
        )
    for kind in ("inputs", "outputs"):
        for t in document[kind]:
            lines.append(f"{kind[:-1]}: {t['name']} {t['dtype']} [{', '.join(map(str, t['shape']))}]")
    lines += [f"note: {note}" for note in document["notes"]]
    if args.verify:
        lines.append("verified: every byte agrees with its checksum and the file with its digest")
    return "\n".join(lines)


def _decibels(error: dict[str, Any]) -> str:
    if error["snr_db"] is None:
        return "-" if error["measured_max_error"] else "exact"
    return f"{error['snr_db']:.1f}"
