"""``edgeinfer plan``: what a run would do and take, before a single weight is read."""

from __future__ import annotations

import argparse

from ..errors import PlanError
from .arguments import add_session_arguments
from .output import add_json_argument, check_writable, report

SUMMARY = (
    "Plan a run under a memory limit: slices of the batch, regions of the arena, the predicted peak of the process, the smallest ceiling."
)
EXAMPLE = """  edgeinfer plan model.edge --memory-limit 64MiB --batch 8
  edgeinfer plan model.edge --memory-limit 16MiB --json      # exits with 7 and names the smallest ceiling when nothing fits"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.edge")
    add_session_arguments(parser, "samples per run (default 1)")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    check_writable(args.json)
    from .. import plan
    from ..runtime.plan import choose_limit

    limit = choose_limit(args.memory_limit)
    try:
        made = plan(args.model, memory_limit=limit, batch=args.batch or 1, threads=args.threads, symbols=args.symbols)
    except PlanError as error:
        if args.json is not None:
            report(args, {"memory_limit": limit, "smallest_ceiling": error.smallest_ceiling, "error": str(error)}, str)
        raise
    report(args, made.to_json(), made.table)
