"""``edgeinfer ops``: what this build can do, and which of it this CPU uses."""

from __future__ import annotations

import argparse
import inspect
import os
from typing import Any

from .output import add_json_argument, check_writable, report

SUMMARY = "List operators (native steps or NumPy), quantizers, coders, and the kernel variants of this build that this CPU can run."
EXAMPLE = """  edgeinfer ops
  edgeinfer ops --kernels   # what the planner takes each kind of work to cost, by which it chooses algorithms
  edgeinfer ops --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kernels", action="store_true", help="also show the rates by which algorithms are chosen, and their source")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    check_writable(args.json)
    report(args, document := survey(), lambda: _text(document, args.kernels))


def survey() -> dict[str, Any]:
    """Registered names by kind; an operator is native where its class lowers to steps."""
    from .. import coders, ops, quantizers
    from ..kernels.codec import available_kernels
    from ..kernels.program import ALGORITHMS
    from ..ops.base import OPERATORS, Op
    from ..runtime.plan import choose_kernels
    from ..runtime.profile import profile_of

    rates = profile_of(choose_kernels())
    assert ops is not None
    native = {name: OPERATORS[name].lower is not Op.lower for name in OPERATORS}
    available = available_kernels()
    return {
        "operators": {name: "native" if native[name] else "numpy" for name in OPERATORS},
        "quantizers": {name: _first_line(quantizers.QUANTIZERS[name]) for name in quantizers.QUANTIZERS},
        "coders": {name: _first_line(coders.CODERS[name]) for name in coders.CODERS},
        "kernels": {"available": available, "used": choose_kernels(), "forced": bool(os.environ.get("EDGEINFER_KERNELS"))},
        "algorithms": list(ALGORITHMS),
        "rates": {"source": rates.source, "per_second": dict(rates.rates)},
    }


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def _text(document: dict[str, Any], kernels_too: bool = False) -> str:
    kernels = document["kernels"]
    lines = [
        f"kernels: {', '.join(kernels['available'])}; used: {kernels['used']}"
        + (" (forced by EDGEINFER_KERNELS)" if kernels["forced"] else "")
    ]
    if kernels_too:
        from ..runtime.profile import TERMS

        rates = document["rates"]
        lines += ["", f"algorithms of convolutions: {', '.join(document['algorithms'])}; the one of least expected time is taken"]
        lines += [f"expected time is work / rate ({rates['source']}; EDGEINFER_PROFILE names a file of 'edgeinfer tune profile'):"]
        lines += [f"  {term:<18}{rates['per_second'][term]:>10.3g} per second and thread   {unit}" for term, unit in TERMS.items()]
    for kind in ("native", "numpy"):
        names = [name for name, form in document["operators"].items() if form == kind]
        lines += ["", f"operators, {'native steps' if kind == 'native' else 'NumPy'} ({len(names)}):", *_wrapped(names)]
    for kind in ("quantizers", "coders"):
        width = max(map(len, document[kind]))
        lines += ["", f"{kind}:", *(f"  {name:<{width}}  {meaning}" for name, meaning in document[kind].items())]
    return "\n".join(lines)


def _wrapped(names: list[str], width: int = 110) -> list[str]:
    lines = [" "]
    for name in names:
        if len(lines[-1]) + len(name) + 1 > width:
            lines.append(" ")
        lines[-1] += " " + name
    return lines
