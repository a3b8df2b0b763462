"""``edgeinfer compress``: an ONNX file into a container."""

from __future__ import annotations

import argparse
import time

from ..errors import UsageError
from ..sizes import format_seconds, format_size
from .arguments import option
from .output import Progress, add_json_argument, check_writable, is_special, report

SUMMARY = "Compress an ONNX file (.onnx or .onnx.xz) into an .edge container. An interrupted run leaves nothing behind."
EXAMPLE = """  edgeinfer compress model.onnx -o model.edge --quantizer kmeans --bits 4
  edgeinfer compress model.onnx -o model.edge --recipe recipe.yaml --json
  edgeinfer compress retrained.onnx -o retrained.edge --like model.edge"""

QUANTIZERS = ("none", "uniform", "kmeans", "sign")
CODERS = ("raw", "packed", "huffman", "rans", "gaps")


@option
def _bits(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 8:
        raise UsageError(f"expected a whole number from 1 to 8, found {text!r}")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.onnx")
    parser.add_argument("-o", "--output", required=True, metavar="MODEL.edge")
    parser.add_argument(
        "--quantizer", choices=QUANTIZERS, help="how weights become symbols (default: the compressor's choice, see the manual)"
    )
    parser.add_argument("--coder", choices=CODERS, help="how symbols become bytes (default: the smallest that runs fused)")
    parser.add_argument("--bits", type=_bits, metavar="N", help="symbols of N bits for all weights, 1 to 8")
    parser.add_argument(
        "--calibration",
        metavar="DATA.npz",
        help="samples of every input, by name: symbols are chosen so that each layer's outputs change least on them; no labels",
    )
    parser.add_argument(
        "--no-compensation",
        action="store_true",
        help="do not run a network of images on made images to let errors cancel in each layer's outputs: quicker and less exact",
    )
    parser.add_argument("--recipe", metavar="FILE.yaml", help="quantizer, coder and bits per layer")
    parser.add_argument(
        "--like",
        metavar="FILE.edge",
        help="repeat what this container was asked to be: quantizer, coder, bits, rules, and whether compensation was used",
    )
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    if args.recipe and (args.quantizer or args.coder or args.bits):
        raise UsageError("--recipe already says quantizer, coder and bits of every layer; leave out --quantizer, --coder and --bits")
    if args.like and (args.quantizer or args.coder or args.bits or args.recipe):
        raise UsageError("--like repeats quantizer, coder, bits and rules; leave out --quantizer, --coder, --bits and --recipe")
    if args.quantizer == "none" and args.bits:
        raise UsageError("--quantizer none keeps the weights as they are; leave out --bits")
    check_writable(args.output, args.json)
    if is_special(args.output):
        raise UsageError(f"cannot write {args.output}: a container is written beside its place and renamed, so it has to be a file")
    from ..compress import compress

    names = ("quantizer", "coder", "bits", "recipe", "like", "calibration")
    options = {name: value for name in names if (value := getattr(args, name)) is not None}
    began = time.perf_counter()
    with Progress("compressing") as progress:
        compress(args.model, args.output, progress=progress, compensation=not args.no_compensation, **options)
    spent = time.perf_counter() - began
    from ..container import Reader

    with Reader(args.output) as reader:
        entries, notes = list(reader.entries.values()), list(reader.graph.notes)
    weights = sum(entry.weights for entry in entries if entry.dtype == "float32")
    nbytes = sum(entry.nbytes for entry in entries)
    document = {
        "model": args.model,
        "output": args.output,
        "seconds": spent,
        "totals": {"fp32_bytes": 4 * weights, "bytes": nbytes, "ratio": 4 * weights / nbytes if nbytes else None, "weights": weights},
        "notes": notes,
    }

    def text() -> str:
        ratio = f" ({4 * weights / nbytes:.1f} times smaller, {8 * nbytes / weights:.2f} bits per weight)" if nbytes and weights else ""
        lines = [
            f"{args.output}: {weights} weights, {format_size(4 * weights)} as fp32, {format_size(nbytes)} now{ratio}, "
            f"in {format_seconds(spent)}"
        ]
        return "\n".join(lines + [f"note: {note}" for note in notes])

    report(args, document, text)
