"""``edgeinfer tune``: what is fitted to a device or to data, one subcommand each.

A subcommand is an entry of ``SUBCOMMANDS``: a line of summary, a function that adds its arguments, one that runs it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from . import tune_cache, tune_ensemble
from .arguments import seconds
from .output import Progress, add_json_argument, check_writable, report, table, write_whole

SUMMARY = "Fit what depends on this device or on data."
EXAMPLE = """  edgeinfer tune profile -o device.json
  EDGEINFER_PROFILE=device.json edgeinfer plan model.edge
  edgeinfer tune profile --json
""" + "\n".join((tune_cache.EXAMPLE, tune_ensemble.EXAMPLE))


class Subcommand(NamedTuple):
    """One thing to tune."""

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]


def _profile_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", metavar="FILE", help="write the profile here, for EDGEINFER_PROFILE")
    parser.add_argument("--seconds", type=seconds, default=0.1, metavar="TIME", help="time given to each layer (default 0.1s)")
    add_json_argument(parser)


def _profile(args: argparse.Namespace) -> None:
    check_writable(args.json, args.output)
    from ..runtime import profile as rates
    from ..runtime.plan import choose_kernels
    from ..tune import profile

    kernels = choose_kernels()
    with Progress("measuring") as progress:
        found, timed = profile.measure(kernels, args.seconds, progress)
    if args.output is not None:
        encoded = rates.dumps({kernels: found}).encode()
        write_whole(Path(args.output), lambda file: file.write(encoded))
    built_in = rates.BUILT_IN[kernels]
    errors = sorted(abs(explained / taken - 1) for _, taken, explained in timed)
    document: dict[str, Any] = {
        "kernels": kernels,
        "source": found.source,
        "rates": dict(found.rates),
        "built_in": dict(built_in.rates),
        "median_error": errors[len(errors) // 2],
        "output": args.output,
    }

    def text() -> str:
        rows = [[term, f"{found.rates[term]:.3g}", f"{built_in.rates[term]:.3g}", unit] for term, unit in rates.TERMS.items()]
        lines = [
            f"{found.source}, kernels {kernels}, one thread; {len(timed)} layers, "
            f"median error of the expected time {document['median_error']:.0%}",
            "",
            table(["term", "per second", "built in", "of"], rows),
        ]
        return "\n".join([*lines, *(["", f"written to {args.output}"] if args.output else [])])

    report(args, document, text)


#: name -> what it is
SUBCOMMANDS = {
    "profile": Subcommand("measure how fast this device's kernels are; the planner chooses algorithms by it", _profile_arguments, _profile),
    "cache": Subcommand(tune_cache.SUMMARY, tune_cache.add_arguments, tune_cache.run),
    "ensemble": Subcommand(tune_ensemble.SUMMARY, tune_ensemble.add_arguments, tune_ensemble.run),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    choices = parser.add_subparsers(dest="subcommand", required=True, metavar="{" + ",".join(SUBCOMMANDS) + "}")
    for name, subcommand in SUBCOMMANDS.items():
        subcommand.add_arguments(choices.add_parser(name, help=subcommand.summary, description=subcommand.summary, allow_abbrev=False))


def run(args: argparse.Namespace) -> int | None:
    return SUBCOMMANDS[args.subcommand].run(args)
