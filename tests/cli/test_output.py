"""Progress bars, tables, files that appear whole or not at all."""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeinfer.cli import output
from edgeinfer.errors import UsageError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_silent_away_from_a_terminal() -> None:
    stream = io.StringIO()
    with output.Progress("working", stream) as progress:
        progress(1, 2, "layer")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("tqdm", [True, False])
def test_progress_on_a_terminal(tqdm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if tqdm:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    stream = Terminal()
    with output.Progress("working", stream) as progress:
        for done in range(4):
            progress(done + 1, 4, f"layer{done}")
    assert "working" in stream.getvalue() and "\n" not in stream.getvalue().strip("\r\n")


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "out.npz"
    target.write_bytes(b"before")

    def interrupted(file: io.BufferedWriter) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        output.write_whole(target, interrupted)
    assert target.read_bytes() == b"before" and list(tmp_path.iterdir()) == [target]
    output.write_whole(target, lambda file: file.write(b"after"))
    assert target.read_bytes() == b"after" and list(tmp_path.iterdir()) == [target]


def test_npz_with_awkward_names(tmp_path: Path) -> None:
    arrays = {"file": np.arange(6.0).reshape(2, 3), "allow_pickle": np.ones(2, np.int64), "a/b:0": np.float32(3)[None]}
    output.write_whole(tmp_path / "o.npz", lambda file: output.write_npz(file, arrays))
    with np.load(tmp_path / "o.npz") as read:
        assert set(read.files) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(read[name], array)


def test_output_that_cannot_be_written_is_refused_early(tmp_path: Path) -> None:
    output.check_writable(None, "-", str(tmp_path / "new.json"))
    for path in (tmp_path, tmp_path / "absent" / "x.json"):
        with pytest.raises(UsageError, match="cannot write"):
            output.check_writable(str(path))


def test_json_knows_numpy_and_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"a": np.float32(0.5), "b": np.int64(3), "c": float("nan"), "d": (1, 2), "e": [np.bool_(True)], "f": float("inf")}
    output.report(argparse.Namespace(json="-"), document, str)
    assert json.loads(capsys.readouterr().out) == {"a": 0.5, "b": 3, "c": None, "d": [1, 2], "e": [True], "f": None}


def test_table() -> None:
    assert output.table(["name", "n"], [["a", "10"], ["long", "5"]]) == "name   n\na     10\nlong   5"
