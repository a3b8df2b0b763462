"""``edgeinfer serve``: the service, until SIGTERM."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from ..errors import UsageError
from .output import add_json_argument, check_writable, report

SUMMARY = "Serve a folder of models over HTTP (Open Inference Protocol V2) on a unix socket or loopback TCP, under one memory ceiling."
EXAMPLE = """  edgeinfer serve --config /etc/edgeinfer/serve.yaml
  curl --unix-socket /run/edgeinfer/http.sock http://localhost/v2/models/digits"""

_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}


class _Lines(logging.Formatter):
    """One line a record; with the priority in front where systemd reads it (sd-daemon(3)), with the level elsewhere."""

    def __init__(self, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage().replace("\n", " ")
        mark = f"<{_PRIORITIES.get(record.levelno, 6)}>" if self._journal else f"edgeinfer: {record.levelname.lower()}: "
        if record.exc_info and record.exc_info[0] is not None:
            text += "\n" + self.formatException(record.exc_info)
        return mark + text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    keys = "listen, models, memory_limit, threads, token_file, model_settings"
    parser.add_argument("--config", required=True, metavar="serve.yaml", help=f"keys: {keys} and more (docs/how-to/serve.md)")
    parser.add_argument("--check", action="store_true", help="check the configuration and say what it means, instead of serving")
    parser.add_argument("--unit-limits", action="store_true", help="print the systemd drop-in with the memory limits of the ceiling")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> None:
    check_writable(args.json)
    from ..serve.config import load, read_token

    config = load(args.config)
    if args.unit_limits:
        from ..serve.systemd import unit_limits

        if config.memory_limit is None:
            raise UsageError(f"{args.config}: there is no memory_limit to derive limits from")
        print(unit_limits(config.memory_limit), end="")
        return
    if args.check:
        if config.token_file is not None:
            read_token(config.token_file)
        document = {
            "listen": ", ".join(map(str, config.listen)),
            "models": config.models,
            "memory_limit": config.memory_limit,
            "request_memory": config.request_bytes,
            "threads": config.threads,
            "token": config.token_file is not None,
        }
        report(args, document, lambda: "\n".join(f"{key:<15} {value}" for key, value in document.items()))
        return
    writer = logging.StreamHandler(sys.stderr)
    writer.setFormatter(_Lines("JOURNAL_STREAM" in os.environ))
    log = logging.getLogger("edgeinfer.serve")
    log.addHandler(writer)
    log.setLevel(logging.INFO)
    log.propagate = False
    # waitress logs what the service answers anyway
    logging.getLogger("waitress").setLevel(logging.CRITICAL)
    from ..serve.service import Service

    Service(args.config, config).run()
