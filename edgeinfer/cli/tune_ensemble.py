"""``edgeinfer tune ensemble``: fit the thresholds of an ensemble to held-out rows and write its file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, UsageError
from .arguments import count, option, seconds, size
from .output import Progress, add_json_argument, check_writable, report, table, write_whole

SUMMARY = "fit the thresholds at which an ensemble stops, on rows that no member was trained on"
EXAMPLE = """  edgeinfer tune ensemble small.edge large.edge --data heldout.npz -o ensemble.yaml
  edgeinfer tune ensemble a.edge b.edge c.edge --data heldout.npz -o e.yaml --max-disagreement 0.01 --report e.html"""


@option
def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise UsageError(f"expected a number from 0 to 1, found {text!r}")
    return value


@option
def points(text: str) -> float:
    """Points of accuracy: ``0.3``."""
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"expected points of accuracy, found {text!r}") from None


def read_rows(path: str, wanted: list[str]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Arrays by input name and ``labels`` where there are any, from an ``.npz``. Raises InputError."""
    try:
        with np.load(path, allow_pickle=False) as found:
            if not hasattr(found, "files"):
                raise InputError(f"{path}: expected an .npz with one array per input, found a single array")
            missing = [n for n in wanted if n not in found.files]
            if missing:
                there = ", ".join(map(repr, found.files)) or "none"
                raise InputError(f"{path}: expected arrays {', '.join(map(repr, wanted))}, found {there}")
            feed = {name: found[name] for name in wanted}
            labels = found["labels"].astype(np.int64) if "labels" in found.files else None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except InputError:
        raise
    except Exception as error:  # zipfile and NumPy's header parser raise many kinds
        raise InputError(f"{path}: not an .npz file: {error}") from None
    rows = {len(a) if a.ndim else 0 for a in feed.values()} | ({len(labels)} if labels is not None and labels.ndim else set())
    if len(rows) != 1:
        raise InputError(f"{path}: expected the same number of samples in every array, found {', '.join(map(str, sorted(rows)))}")
    if rows == {0}:
        raise InputError(f"{path}: expected samples, found none")
    for name, array in feed.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"{path}: input {name!r}: expected finite values, found NaN or infinity")
    return feed, labels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("members", nargs="+", metavar="MEMBER.edge", help="containers that answer the same question")
    parser.add_argument("--data", required=True, metavar="HELDOUT.npz", help="arrays by input name; with 'labels', accuracy is known")
    parser.add_argument("-o", "--output", required=True, metavar="ENSEMBLE.yaml")
    aim = parser.add_argument_group(
        "aim", "one of these; default: the paper's objective where there are labels, else --max-disagreement 0.01"
    )
    aim.add_argument("--alpha", type=share, help="weight of latency against relative increase of the error (default 0.5)")
    aim.add_argument("--max-disagreement", type=share, metavar="SHARE", help="rows answered otherwise than by all members, at most")
    aim.add_argument("--max-drop", type=points, metavar="POINTS", help="accuracy lost against all members, at most")
    aim.add_argument("--max-latency", type=seconds, metavar="TIME", help="mean per row, at most")
    aim.add_argument("--max-p99", type=seconds, metavar="TIME", help="99th percentile per row, at most")
    parser.add_argument("--confidence", type=share, default=0.95, help="of the bounds on disagreement (default 0.95)")
    parser.add_argument(
        "--order", choices=("fitted", "given"), default="fitted", help="of the members (default: found by cost and accuracy)"
    )
    parser.add_argument("--threads", type=count, metavar="N", help="default: EDGEINFER_THREADS, else the cores this process may use")
    parser.add_argument("--memory-limit", type=size, metavar="SIZE", help="ceiling on resident memory of the members together")
    parser.add_argument("--seed", type=int, default=0, help="of the division of rows into a fitting and a judging half (default 0)")
    parser.add_argument("--report", metavar="FILE.html", help="write a page with curves and shares")
    add_json_argument(parser)


def _aim(args: argparse.Namespace, labelled: bool) -> dict[str, Any]:
    given = {
        "paper": args.alpha is not None,
        "disagreement": args.max_disagreement is not None,
        "drop": args.max_drop is not None,
        "latency": args.max_latency is not None or args.max_p99 is not None,
    }
    if sum(given.values()) > 1:
        raise UsageError("choose one aim: --alpha, --max-disagreement, --max-drop, or --max-latency with --max-p99")
    objective = next((name for name, there in given.items() if there), "paper" if labelled else "disagreement")
    return {
        "objective": objective,
        "alpha": 0.5 if args.alpha is None else args.alpha,
        "max_disagreement": 0.01 if args.max_disagreement is None else args.max_disagreement,
        "max_drop": args.max_drop,
        "max_latency": args.max_latency,
        "max_p99": args.max_p99,
        "confidence": args.confidence,
        "keep_order": args.order == "given",
        "seed": args.seed,
    }


def run(args: argparse.Namespace) -> None:
    check_writable(args.output, args.report, args.json)
    from ..container import Reader
    from ..tune import ensemble

    with Reader(args.members[0]) as reader:
        names = [spec.name for spec in reader.graph.inputs]
    feed, labels = read_rows(args.data, names)
    aim = _aim(args, labels is not None)
    kinds = {ensemble.scores_of(path) for path in args.members}
    if len(kinds) > 1:
        raise UsageError("members: some give probabilities (their last operator is Softmax) and some do not")
    scores = kinds.pop()
    with Progress("asking members") as progress:
        recording, digests = ensemble.record(
            args.members, feed, labels, scores=scores, memory_limit=args.memory_limit, threads=args.threads, progress=progress
        )
    fitted = ensemble.fit(recording, **aim)
    folder = os.path.dirname(os.path.abspath(args.output))
    paths = [os.path.relpath(os.path.abspath(p), folder) for p in args.members]
    made = ensemble.file_of(fitted, paths, digests, scores, args.confidence)
    write_whole(Path(args.output), lambda file: file.write(made.dumps().encode()))
    document = ensemble.document(fitted, args.members, args.confidence) | {"output": args.output, "objective": aim["objective"]}
    if args.report:
        text_of = ensemble.report(document)
        write_whole(Path(args.report), lambda file: file.write(text_of.encode()))

    def text() -> str:
        chosen, full = document["chosen"], document["full"]
        curve = [
            [
                f"{p['quality']:.3f}" + (" *" if p["quality"] == document["quality"] else ""),
                f"{p['latency_ms']['mean']:.3f}",
                f"{p['latency_ms']['p99']:.3f}",
                f"{p['members']:.2f}",
                "-" if p["accuracy"] is None else f"{100 * p['accuracy']:.2f} %",
                f"{100 * p['disagreement']:.2f} %",
                f"{100 * p['bound']:.2f} %",
            ]
            for p in document["curve"]
        ]
        return "\n".join(
            [
                "order     " + ", ".join(f"{os.path.basename(m['path'])} ({m['milliseconds']:.3f} ms)" for m in document["members"]),
                f"chosen    quality {document['quality']:g}: {chosen['latency_ms']['mean']:.3f} ms per row, all members "
                f"{full['latency_ms']['mean']:.3f} ms; disagreement {100 * chosen['disagreement']:.2f} %, "
                f"at most {100 * chosen['bound']:.2f} % "
                f"with confidence {args.confidence:g}",
                "",
                table(["quality", "mean ms", "p99 ms", "members", "accuracy", "disagreement", "bound"], curve),
                "",
                f"written to {args.output}" + (f", {args.report}" if args.report else ""),
            ]
        )

    report(args, document, text)
