"""``edgeinfer plan``: what a run would do and take, before a single weight is read."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import PlanError
from .arguments import add_session_arguments, seconds
from .output import add_json_argument, check_writable, report, write_whole

SUMMARY = (
    "Plan a run under limits on memory and latency: batch sizes of segments, where weights live, regions of the arena, the predicted "
    "peak of the process, the smallest ceiling."
)
EXAMPLE = """  edgeinfer plan model.edge --memory-limit 64MiB --batch 8 --report plan.html
  edgeinfer plan model.edge --batch 32 --latency-limit 100ms
  edgeinfer plan model.edge --memory-limit 16MiB --json      # exits with 7 and names the smallest ceiling when nothing fits"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.edge")
    add_session_arguments(parser, "samples per run (default 1)")
    parser.add_argument("--latency-limit", type=seconds, metavar="TIME", help="most time of one round of the batch, as 100ms")
    parser.add_argument("--report", metavar="OUT.html", help="a page with the memory map over time, the batch sizes and the time per layer")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    check_writable(args.json, args.report)
    from .. import plan
    from ..runtime.plan import choose_limit

    limit = choose_limit(args.memory_limit)
    try:
        made = plan(
            args.model,
            memory_limit=limit,
            latency_limit=args.latency_limit,
            batch=args.batch or 1,
            threads=args.threads,
            symbols=args.symbols,
        )
    except PlanError as error:
        if args.json is not None:
            report(args, {"memory_limit": limit, "smallest_ceiling": error.smallest_ceiling, "error": str(error)}, str)
        raise
    if args.report is not None:
        from .planpage import page

        write_whole(Path(args.report), lambda file: file.write(page(made).encode()))
    report(args, made.to_json(), made.table)
