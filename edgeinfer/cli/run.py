"""``edgeinfer run``: a model, a file, the answers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from ..sizes import format_seconds
from . import inputs
from .arguments import add_session_arguments, count
from .output import add_json_argument, check_writable, report, write_npz, write_whole

SUMMARY = "Run a model on a .npy or .npz file (arrays named as the inputs) or an image, under a memory ceiling if one is given."
EXAMPLE = """  edgeinfer run model.edge photo.jpg --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --top 5
  edgeinfer run model.edge inputs.npz -o outputs.npz --memory-limit 64MiB --profile"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.edge")
    parser.add_argument("input", metavar="INPUT", help=".npy, .npz or an image")
    parser.add_argument("-o", "--output", metavar="OUT.npz", help="write all outputs, by name")
    parser.add_argument("--top", type=count, metavar="K", help="print the K largest values of the first output, per sample")
    parser.add_argument("--profile", action="store_true", help="run once more and print the time of each layer")
    parser.add_argument("--base-only", action="store_true", help="use the sign planes of sign-quantised weights alone")
    add_session_arguments(parser, "samples per run to plan for (default: as many as INPUT has)")
    inputs.add_image_arguments(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    check_writable(args.output, args.json)
    if args.output:
        import zipfile  # noqa: F401  (what writing takes is taken before the model is planned)
    rows = inputs.rows_of(args.input, args.model)
    from ..runtime.session import InferenceSession
    from . import measurement

    opened: list[InferenceSession] = []
    load = measurement.timed(
        lambda: opened.append(
            InferenceSession(
                args.model,
                memory_limit=args.memory_limit,
                threads=args.threads,
                batch=args.batch or max(rows, 1),
                symbols=args.symbols,
                base_only=args.base_only,
            )
        )
    )
    with opened[0] as session:
        feed = inputs.load(args.input, session.get_inputs(), inputs.preprocessing(args))
        results: list[np.ndarray] = []
        before = measurement.faults()
        first = measurement.timed(lambda: results.extend(session.run(None, feed)))
        faulted = tuple(now - then for now, then in zip(measurement.faults(), before, strict=True))
        names = [arg.name for arg in session.get_outputs()]
        top = _top(results[0], args.top) if args.top else None
        layers, profile = None, ""
        compute = None
        if args.profile:
            session.profiling = True
            session.run(None, feed)
            layers, profile = measurement.profile_table(session)
            compute = sum(layer["ms"] for layer in layers) / 1e3
        samples = rows if session.store.graph.batch is not None else 1
        measured = measurement.document(session, args.model, samples, load, first, [first], (faulted[0], faulted[1]), compute)
        if args.output:
            write_whole(Path(args.output), lambda file: write_npz(file, dict(zip(names, results, strict=True))))

        measured["outputs"] = {n: {"shape": list(a.shape), "dtype": str(a.dtype)} for n, a in zip(names, results, strict=True)}
        if top is not None:
            measured["top"] = top
        if layers is not None:
            measured["layers"] = layers

        def text() -> str:
            lines = [_summary(name, array) for name, array in zip(names, results, strict=True)]
            for row, best in enumerate(top or []):
                lines.append(f"sample {row}: " + ", ".join(f"class {b['class']} ({b['value']:.4g})" for b in best))
            lines.append(
                f"time      {format_seconds(first)} for {samples} sample(s); {format_seconds(load)} to load; "
                f"{session.threads} thread(s), {session.kernels}"
            )
            lines += measurement.memory_lines(measured)
            if profile:
                lines += ["", profile]
            if args.output:
                lines.append(f"outputs   written to {args.output}")
            return "\n".join(lines)

        report(args, measured, text)


def _top(array: np.ndarray, k: int) -> list[list[dict[str, Any]]]:
    rows = array.reshape(array.shape[0] if array.ndim > 1 else 1, -1)
    best = np.argsort(-rows, axis=1, kind="stable")[:, :k]
    return [[{"class": int(c), "value": float(row[c])} for c in classes] for row, classes in zip(rows, best, strict=True)]


def _summary(name: str, array: np.ndarray) -> str:
    shape = "[" + ", ".join(map(str, array.shape)) + "]"
    if array.size == 0 or array.dtype.kind not in "fiu":
        return f"output    {name}: {array.dtype} {shape}"
    return f"output    {name}: {array.dtype} {shape}, from {array.min():.4g} to {array.max():.4g}, mean {array.mean():.4g}"
