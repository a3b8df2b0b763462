"""The command line: one module per command, imported only when that command is asked for.

A command module offers ``SUMMARY`` (one line), ``EXAMPLE`` (shown under its help), ``add_arguments(parser)`` and ``run(args)``,
which prints its answer and returns an exit code or ``None`` for 0. Errors leave through :func:`main` as one line on stderr and the
exit code of their class.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import NoReturn

from ..errors import EdgeInferError, UsageError

#: command -> what the overview says about it
COMMANDS = {
    "compress": "turn an ONNX file into a compressed .edge container",
    "inspect": "show what a container holds, layer by layer; verify it",
    "plan": "plan a run under a memory limit; print segments, regions and the predicted peak",
    "run": "run a model on a .npy, .npz or image file",
    "bench": "measure latency, memory and faults on this device, alone or against a peer",
    "tune": "measure this device for the planner",
    "serve": "serve a folder of models over HTTP (Open Inference Protocol V2)",
    "ops": "list operators, quantizers, coders and kernel variants",
    "doctor": "say what this device is and what that means for the configuration",
    "demo": "compress and run the small model that ships, under a 48 MiB ceiling",
}

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
EXIT_PIPE_CLOSED = 141  # 128 + SIGPIPE


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are UsageErrors: one line, no usage text in front of it."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see '{self.prog} --help')")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Prints nothing but the command's own output, or one line of error on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with _signals_raise():
            code = _dispatch(arguments)
            sys.stdout.flush()
        return code
    except _Terminated as stop:
        return 128 + stop.number
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return EXIT_PIPE_CLOSED
    except Exception as error:
        if os.environ.get("EDGEINFER_DEBUG") == "1":
            import traceback

            traceback.print_exc()
        code, message = _explain(error)
        print("edgeinfer: error:", " ".join(message.split()), file=sys.stderr)
        return code


class _Terminated(BaseException):
    """SIGTERM or SIGHUP came; like KeyboardInterrupt, so that what was begun is cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Let signals that would end the process at once, partial files and all, end the command instead. Ignored ones stay ignored."""

    def stop(number: int, frame: object) -> NoReturn:
        raise _Terminated(number)

    caught: list[int] = []
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, stop)
                caught.append(number)
    try:
        yield
    finally:
        for each in caught:
            signal.signal(each, signal.SIG_DFL)


def _dispatch(arguments: list[str]) -> int:
    first = arguments[0] if arguments else "--help"
    if first in COMMANDS:
        module = importlib.import_module(f".{first}", __name__)
        parser = Parser(
            prog=f"edgeinfer {first}",
            description=module.SUMMARY,
            epilog=f"example:\n{module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(parser)
        try:
            args = parser.parse_args(arguments[1:])
        except SystemExit as done:  # --help; everything else is a UsageError by now
            return int(done.code or 0)
        return int(module.run(args) or 0)
    if first in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if first in ("-V", "--version"):
        from .. import __version__

        print(f"edgeinfer {__version__}")
        return 0
    raise UsageError(f"unknown command {first!r}; known: {', '.join(COMMANDS)} (see 'edgeinfer --help')")


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [
        "usage: edgeinfer COMMAND ...",
        "",
        "Runs neural networks on small devices from their compressed form, under a memory ceiling.",
        "",
        "commands:",
    ]
    lines += [f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()]
    lines += ["", "'edgeinfer COMMAND --help' explains a command, with an example. 'edgeinfer --version' prints the version."]
    return "\n".join(lines)


def _explain(error: Exception) -> tuple[int, str]:
    """Exit code and message of an exception that ended a command."""
    if isinstance(error, EdgeInferError):
        return error.exit_code, str(error) or type(error).__name__
    if isinstance(error, OSError):
        reason = error.strerror or str(error) or type(error).__name__
        if error.errno == errno.ENOMEM:
            reason += "; the device has too little free memory for this"
        return EdgeInferError.exit_code, f"{error.filename}: {reason}" if error.filename is not None else reason
    if isinstance(error, MemoryError):
        return EdgeInferError.exit_code, "out of memory; state a ceiling with --memory-limit, or free memory on the device"
    return EdgeInferError.exit_code, f"internal error: {type(error).__name__}: {error} (EDGEINFER_DEBUG=1 shows where)"


def _silence_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not complain about the closed pipe."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is no file, as under a test's capture
        pass
