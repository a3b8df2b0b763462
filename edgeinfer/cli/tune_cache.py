"""``edgeinfer tune cache``: fit layer caches to a container and write their file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..errors import UsageError
from .arguments import count, size
from .output import Progress, add_json_argument, check_writable, report, table, write_whole
from .tune_ensemble import read_rows, share

SUMMARY = "fit layer caches: small heads at which rows leave early when their answer is sure"
EXAMPLE = """  edgeinfer tune cache model.edge --data heldout.npz -o model.caches
  edgeinfer tune cache model.edge --data heldout.npz --training more.npz --max-disagreement 0.02 -o model.caches --report caches.html"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.edge")
    parser.add_argument("--data", required=True, metavar="HELDOUT.npz", help="arrays by input name, of rows the network was not trained on")
    parser.add_argument("--training", metavar="MORE.npz", help="more rows that only teach the heads; training data will do")
    parser.add_argument("-o", "--output", required=True, metavar="MODEL.caches")
    parser.add_argument(
        "--max-disagreement",
        type=share,
        default=0.01,
        metavar="SHARE",
        help="rows answered otherwise than by the whole network (default 0.01)",
    )
    parser.add_argument("--confidence", type=share, default=0.95, help="with which that is kept (default 0.95)")
    parser.add_argument("--max-bytes", type=size, metavar="SIZE", help="of all caches (default: 5 %% of the container)")
    parser.add_argument("--augment", type=int, default=4, metavar="N", help="varied copies of each row that heads learn from (default 4)")
    parser.add_argument("--epochs", type=count, default=6, metavar="N", help="passes over them (default 6)")
    parser.add_argument("--places", type=count, default=8, metavar="N", help="boundaries to consider (default 8)")
    parser.add_argument("--recent", type=int, default=64, metavar="N", help="answers kept for scenes that come again; 0: none (default 64)")
    parser.add_argument("--threads", type=count, metavar="N", help="default: EDGEINFER_THREADS, else the cores this process may use")
    parser.add_argument("--seed", type=int, default=0, help="of divisions, variations and starts (default 0)")
    parser.add_argument("--report", metavar="FILE.html", help="write a page with exits per layer and curves")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    check_writable(args.output, args.report, args.json)
    for name, most in (("augment", 100), ("recent", 4096)):
        if not 0 <= (found := getattr(args, name)) <= most:
            raise UsageError(f"--{name}: expected 0 to {most}, found {found}")
    from ..runtime.session import InferenceSession
    from ..tune import cache
    from ..tune.ensemble import scores_of

    with InferenceSession(args.model, threads=args.threads, batch=cache.BATCH) as session:
        names = [arg.name for arg in session.get_inputs()]
        feed, _ = read_rows(args.data, names)
        training = read_rows(args.training, names)[0] if args.training else None
        with Progress("fitting caches") as progress:
            fitted = cache.fit(
                session,
                feed,
                training=training,
                promise=args.max_disagreement,
                confidence=args.confidence,
                most_bytes=args.max_bytes,
                augment=args.augment,
                epochs=args.epochs,
                places=args.places,
                recent=args.recent,
                scores=scores_of(args.model),
                seed=args.seed,
                progress=progress,
            )
        nbytes = cache.write(fitted, session, args.output)
    document = cache.document(fitted, nbytes, os.path.getsize(args.model)) | {"output": args.output}
    if args.report:
        made = cache.report(document)
        write_whole(Path(args.report), lambda file: file.write(made.encode()))

    def text() -> str:
        rows = [
            [
                c["boundary"],
                c["kind"],
                f"{100 * c['latency_share']:.1f} %",
                f"{100 * c['share']:.1f} %",
                f"{c['threshold']:.4f}",
                str(c["bytes"]),
            ]
            for c in document["caches"]
        ]
        return "\n".join(
            [
                table(["boundary", "kind", "at share of time", "rows answered", "threshold", "bytes"], rows, left=2),
                "",
                f"expected  {100 * document['latency_share']:.1f} % of the network's time on average, look-ups included",
                f"answers   {100 * document['disagreement']:.2f} % otherwise than the network on "
                f"{document['rows']['certification']} certifying rows; "
                f"at most {100 * args.max_disagreement:.2f} % with confidence {args.confidence:g}",
                f"written   {args.output}, {nbytes} bytes ({100 * document['bytes_share']:.2f} % of the container)"
                + (f"; {args.report}" if args.report else ""),
            ]
        )

    report(args, document, text)
