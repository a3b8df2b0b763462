"""``edgeinfer demo``: the network that ships, compressed, planned, and run inside a ceiling that it would not fit with fp32 weights."""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ..demo.trial import CEILING, FOLDER, SAMPLES, trial
from ..sizes import format_seconds, format_size
from .arguments import size
from .output import Progress, add_json_argument, check_writable, report

SUMMARY = "Compress the network that ships (handwritten digits) with quantizer 'sign' and run it in a fresh process under a 48 MiB ceiling."
EXAMPLE = """  edgeinfer demo
  edgeinfer demo --memory-limit 44MiB --json"""

#: what `edgeinfer compress` is told for the digits.edge that ships, and here
OPTIONS: dict[str, Any] = {"quantizer": "sign", "bits": 5}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--memory-limit", type=size, default=CEILING, metavar="SIZE", help="the ceiling (default 48MiB)")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    check_writable(args.json)
    with tempfile.TemporaryDirectory(prefix="edgeinfer-demo-") as folder:
        document = _document(Path(folder), args.memory_limit)
    report(args, document, lambda: _text(document))


def _document(folder: Path, limit: int) -> dict[str, Any]:
    from ..container import Reader

    shipped = importlib.util.find_spec("onnx") is None
    full = None
    container = FOLDER / "digits.edge"
    if not shipped:
        from ..compress import compress

        source = FOLDER / "digits.onnx.xz"
        container = folder / "digits.edge"
        with Progress("compressing") as progress:
            compress(str(source), str(container), progress=progress, **OPTIONS)
        compress(str(source), str(folder / "fp32.edge"), quantizer="none")
        full = trial(str(folder / "fp32.edge"), None)
        under = trial(str(folder / "fp32.edge"), limit)
        full["refused"], full["streamed_bytes"] = under.get("error"), under.get("streamed_bytes", 0)
    with Reader(str(container)) as reader:
        entries = list(reader.entries.values())
    result = trial(str(container), limit)
    if "error" in result:
        from ..errors import PlanError

        raise PlanError(result["error"], result["smallest_ceiling"])
    if full is not None:
        result["agreement"] = float(np.mean(np.equal(result["classes"], full["classes"])))
    weights = sum(entry.weights for entry in entries if entry.dtype == "float32")
    nbytes = sum(entry.nbytes for entry in entries)
    return {
        "shipped": shipped,
        "model_bytes": {
            "fp32": 4 * weights,
            "compressed": nbytes,
            "file": container.stat().st_size,
            "bits_per_weight": 8 * nbytes / weights,
        },
        "compressed": result,
        "fp32": full,
    }


def _text(document: dict[str, Any]) -> str:
    model, result, full = document["model_bytes"], document["compressed"], document["fp32"]
    limit = result["memory_limit"]
    lines = []
    if document["shipped"]:
        lines.append(
            "The 'onnx' package is not here, so this runs the digits.edge that ships; pip install 'edgeinfer[convert]' compresses it anew."
        )
    lines += [
        f"compressed  {format_size(model['fp32'])} of fp32 weights to {format_size(model['compressed'])}: "
        f"{model['bits_per_weight']:.2f} bits per weight, {model['fp32'] / model['compressed']:.1f} times smaller (quantizer 'sign')",
        f"planned     peak of the whole process {format_size(result['predicted_peak_rss'])}; ceiling {format_size(limit)}; "
        f"it would fit {format_size(result['smallest_ceiling'])}",
        f"ran         peak {format_size(result['peak_rss'])} measured, "
        f"{result['peak_rss'] / result['predicted_peak_rss'] - 1:+.1%} against the prediction, "
        f"{format_size(limit - result['peak_rss'])} below the ceiling; Python and NumPy alone: {format_size(result['baseline_rss'])}",
    ]
    if full is not None:
        lines.append(
            f"with fp32   the same network takes {format_size(full['peak_rss'])}; under this ceiling it is "
            + (
                "refused: it needs " + format_size(full["smallest_ceiling"])
                if full["refused"]
                else f"run by reading {format_size(full['streamed_bytes'])} of its weights from storage each time"
                if full["streamed_bytes"]
                else "accepted too, on this device"
            )
        )
    count = len(result["classes"])
    lines.append(f"accuracy    {result['accuracy']:.2%} of {count} digits it was not trained on")
    if full is not None:
        lines[-1] += f"; fp32 weights: {full['accuracy']:.2%}; the same answer for {result['agreement']:.2%}"
    median = float(np.median(result["seconds"]))
    lines.append(
        f"latency     {format_seconds(median)} per digit, median of {count}, {result['threads']} thread(s), kernels '{result['kernels']}'"
    )
    if full is not None:
        lines[-1] += f"; {format_seconds(float(np.median(full['seconds'])))} with fp32 weights"
    return "\n".join(lines + ["", _drawing(result["classes"])])


def _drawing(classes: list[int], shown: int = 4) -> str:
    """The first sample digits in characters, with what the network says under each."""
    with np.load(SAMPLES) as samples:
        digits, labels = samples["digits"][:shown], samples["labels"][:shown]
    shades = " .:-=+*#%"
    rows = []
    for y in range(digits.shape[1]):
        rows.append("   ".join("".join(shades[min(int(pixel) // 2, 8)] * 2 for pixel in digit[y]) for digit in digits).rstrip())
    verdicts = [f"{found}" + ("" if found == truth else f" (is a {truth})") for found, truth in zip(classes, labels, strict=False)]
    rows.append("   ".join(verdict.center(16) for verdict in verdicts).rstrip())
    return "\n".join(rows)
