"""``edgeinfer inspect``: what a container holds, layer by layer; whether it is whole; how far it is from the network it was made of."""

from __future__ import annotations

import argparse
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.edge")
    parser.add_argument("--verify", action="store_true", help="read every byte and check it against the checksums and the digest")
    parser.add_argument("--compare", metavar="MODEL.onnx", help="measure the error of each layer against the weights of the ONNX file")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    check_writable(args.json)
    with Reader(args.model) as reader:
        graph, entries = reader.graph, dict(reader.entries)
        if args.verify:
            reader.verify()
    users = _users(graph)
    layers = [_layer(entry, users.get(name, "")) for name, entry in entries.items()]
    if args.compare:
        errors = _compare(args.model, args.compare)
        for layer in layers:
            layer.update(errors.get(layer["name"], {}))
    weights = sum(entry.weights for entry in entries.values() if entry.dtype == "float32")
    nbytes = sum(entry.nbytes for entry in entries.values())
    totals = {"fp32_bytes": 4 * weights, "bytes": nbytes, "ratio": 4 * weights / nbytes if nbytes else None, "weights": weights}
    document: dict[str, Any] = {"model": graph.name, "layers": layers, "totals": totals, "notes": list(graph.notes)}
    document["inputs"] = [{"name": t.name, "dtype": t.dtype, "shape": list(t.shape)} for t in graph.inputs]
    document["outputs"] = [{"name": t.name, "dtype": t.dtype, "shape": list(t.shape)} for t in graph.outputs]
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


def _compare(model: str, source: str) -> dict[str, dict[str, float]]:
    """Per coded tensor: largest difference to the weights of ``source``, and the root of the mean square of it over theirs."""
    from ..compress.importer import import_model
    from ..compress.roles import matrices
    from ..runtime.plan import choose_kernels
    from ..runtime.weights import open_store

    _, weights, _ = matrices(*import_model(source))
    store = open_store(model)
    store.load()
    kernels = choose_kernels()
    errors = {}
    with Progress("comparing") as progress:
        for done, (name, tensor) in enumerate(store.coded.items()):
            progress(done, len(store.coded), name)
            if name not in weights or weights[name].size != tensor.rows * tensor.k:
                raise ModelFormatError(f"{source}: has no weights for layer {name!r} of {model}; was {model} made of it?")
            truth = np.asarray(weights[name], dtype=np.float32).reshape(tensor.rows, tensor.k)
            difference = tensor.decode(kernels) - truth
            power = float(np.mean(np.square(truth, dtype=np.float64)))
            errors[name] = {
                "measured_max_error": float(np.abs(difference).max()),
                "relative_rms_error": float(np.sqrt(np.mean(np.square(difference, dtype=np.float64)) / power)) if power else 0.0,
            }
    return errors


def _text(args: argparse.Namespace, document: dict[str, Any], entries: dict[str, Entry]) -> str:
    header = ["layer", "operator", "shape", "quantizer", "coder", "bits/weight", "ratio", "bytes", "max error"]
    if args.compare:
        header += ["measured", "rms, relative"]
    rows = []
    plain = [layer for layer in document["layers"] if layer["quantizer"] is None]
    for layer in document["layers"]:
        if layer["quantizer"] is None:
            continue
        bits = layer["bits_per_weight"]
        row = [layer["name"], layer["op"], "x".join(map(str, layer["shape"])), layer["quantizer"], layer["coder"]]
        row += [f"{bits:.2f}", f"{32 / bits:.1f}" if bits else "-", str(layer["bytes"]), f"{layer['max_error']:.2e}"]
        if args.compare:
            row += [f"{layer['measured_max_error']:.2e}", f"{layer['relative_rms_error']:.2%}"]
        rows.append(row)
    totals = document["totals"]
    lines = [table(header, rows, left=5)]
    if plain:
        lines.append(f"and {len(plain)} small constants kept as they are, {format_size(sum(layer['bytes'] for layer in plain))}")
    ratio = f", {totals['ratio']:.1f} times smaller" if totals["ratio"] else ""
    lines.append(
        f"total: {totals['weights']} weights, {format_size(totals['fp32_bytes'])} as fp32, {format_size(totals['bytes'])} here{ratio}"
    )
    for kind in ("inputs", "outputs"):
        for t in document[kind]:
            lines.append(f"{kind[:-1]}: {t['name']} {t['dtype']} [{', '.join(map(str, t['shape']))}]")
    lines += [f"note: {note}" for note in document["notes"]]
    if args.verify:
        lines.append("verified: every byte agrees with its checksum and the file with its digest")
    return "\n".join(lines)
