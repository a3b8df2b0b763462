"""What commands share in speaking: tables, ``--json``, progress bars, files that appear whole or not at all."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import UsageError


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """``--json [FILE]``: machine output instead of the table, to stdout or FILE."""
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="print JSON instead of text, to stdout or into FILE (write --json=FILE, or put it last)",
    )


def report(args: argparse.Namespace, document: dict[str, Any], text: Callable[[], str]) -> None:
    """Print ``document`` as JSON where ``--json`` asks for it, else the text."""
    if args.json is None:
        print(text())
        return
    encoded = json.dumps(_plain(document), indent=2, allow_nan=False)
    if args.json == "-":
        print(encoded)
    else:
        write_whole(Path(args.json), lambda file: file.write(encoded.encode() + b"\n"))


def check_writable(*paths: str | None) -> None:
    """Refuse, before any work is done, output files whose folder is missing or closed. ``None`` and ``-`` are skipped."""
    for path in paths:
        if path is None or path == "-":
            continue
        folder = Path(path).parent
        if not folder.is_dir():
            raise UsageError(f"cannot write {path}: there is no folder {folder}")
        if Path(path).is_dir():
            raise UsageError(f"cannot write {path}: it is a folder")
        if is_special(path):  # a device or pipe is written to; it needs no room beside it
            if not os.access(path, os.W_OK):
                raise UsageError(f"cannot write {path}: no permission")
            continue
        if not os.access(folder, os.W_OK):
            raise UsageError(f"cannot write {path}: no permission to write in {folder}")


def is_special(path: str | Path) -> bool:
    """True for what exists and is neither a file nor a folder: devices, pipes, sockets."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file beside ``path`` and rename it, so that an interrupted command leaves nothing behind.

    A device or pipe (``/dev/stdout``, ``/dev/null``) is written to as it is; a rename would put a file in its place.
    """
    if is_special(path):
        whole = io.BytesIO()  # an archive wants to know where it is, which devices and pipes do not say
        write(whole)
        with open(path, "wb", buffering=0) as file:
            file.write(whole.getbuffer())
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(beside, "wb") as file:
            write(file)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_npz(file: IO[bytes], arrays: Mapping[str, np.ndarray]) -> None:
    """Arrays by name as ``.npz``. ``np.savez`` cannot write a tensor that is called ``file``."""
    import zipfile

    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Rows as aligned text; the first ``left`` columns are left-aligned, the others right-aligned."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


class Progress:
    """A bar on stderr while long work runs; silent where stderr is not a terminal. Uses tqdm where it is installed.

    Call it with (done, total, what): the form in which ``ei.compress`` reports; the unit does not matter.
    """

    WIDTH = 30

    def __init__(self, label: str, stream: IO[str] | None = None) -> None:
        self._label = label
        self._stream = sys.stderr if stream is None else stream
        self._shown = self._stream.isatty()
        self._bar: Any = None
        self._drawn = False
        if self._shown:
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(
                desc=label,
                file=self._stream,
                leave=False,
                dynamic_ncols=True,
                bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} {postfix}",
            )

    def __call__(self, done: int, total: int, what: str = "") -> None:
        if not self._shown:
            return
        if self._bar is not None:
            self._bar.total = total
            self._bar.set_postfix_str(what, refresh=False)
            self._bar.update(done - self._bar.n)
            return
        filled = self.WIDTH * done // max(total, 1)
        self._stream.write(
            f"\r\x1b[K{self._label} [{'#' * filled}{'.' * (self.WIDTH - filled)}] {100 * done // max(total, 1)} % {what}"[:120]
        )
        self._stream.flush()
        self._drawn = True

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def _plain(value: Any) -> Any:
    """Values that JSON knows: NumPy scalars become Python's, tuples lists, what is not a number null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and not hasattr(value, "__len__"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
