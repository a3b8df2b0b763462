"""Arguments that several commands share, and the environment's part in them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ..errors import UsageError
from ..sizes import parse_seconds, parse_size


def option(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """A parser of option values whose UsageError argparse reports with the option's name in front."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


size = option(parse_size)
seconds = option(parse_seconds)


@option
def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise UsageError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)


@option
def numbers(text: str) -> tuple[float, ...]:
    """``0.485,0.456,0.406``."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"expected numbers separated by commas, found {text!r}") from None


@option
def symbols(text: str) -> dict[str, int]:
    """``S=128,T=100``."""
    values = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if not name or not value.isascii() or not value.isdigit() or int(value) < 1:
            raise UsageError(f"expected NAME=SIZE, separated by commas, found {text!r}")
        values[name] = int(value)
    return values


def add_session_arguments(parser: argparse.ArgumentParser, batch: str) -> None:
    """``--memory-limit``, ``--threads``, ``--batch``, ``--symbols``."""
    parser.add_argument(
        "--memory-limit",
        type=size,
        metavar="SIZE",
        help="ceiling on resident memory of the process, as 64MiB (default: EDGEINFER_MEMORY_LIMIT)",
    )
    parser.add_argument("--threads", type=count, metavar="N", help="default: EDGEINFER_THREADS, else the cores this process may use")
    parser.add_argument("--batch", type=count, metavar="N", help=batch)
    parser.add_argument(
        "--symbols", type=symbols, default={}, metavar="NAME=SIZE,...", help="sizes of free dimensions other than the batch, to plan for"
    )
