"""What ``bench`` adds to latency: batch sizes, cold starts, what the board does meanwhile, peers, the page."""

from __future__ import annotations

import html.parser
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeinfer.cli import coldstart, main, measurement
from edgeinfer.cli.page import page
from edgeinfer.demo.trial import FOLDER

DIGITS = FOLDER / "digits.edge"


def bench(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    assert main(["bench", *map(str, arguments), "--duration", "50ms", "--warmup", "0", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_batch_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    found = bench(capsys, DIGITS, "--batches", "4,1,4", "--threads", "1", "--cold-starts", "0")["batches"]
    assert [each["batch"] for each in found] == [1, 4]
    for each in found:
        assert 0 < each["throughput_per_s"] <= each["batch"] * 1e3 / each["latency_ms"]["min"] * 1.001
        assert each["rss_bytes"]["predicted_peak"] > 10 << 20


def test_batch_size_beyond_the_ceiling_is_cut_or_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(DIGITS), "--memory-limit", "1MiB", "--json"]) == 7
    least = json.loads(capsys.readouterr().out)["smallest_ceiling"]
    (found,) = bench(capsys, DIGITS, "--batches", "4096", "--threads", "1", "--memory-limit", least + (24 << 20), "--cold-starts", "0")[
        "batches"
    ]
    assert "ceiling" in found["error"] if "error" in found else found["planned_batch"] < 4096


def test_batch_sizes_do_not_go_with_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 8, 8), np.float32))
    arguments = ["bench", str(DIGITS), "--input", str(tmp_path / "x.npy"), "--batches", "2", "--duration", "10ms", "--warmup", "0"]
    assert main(arguments) == 2
    assert "--input" in capsys.readouterr().err


def test_cold_start(tmp_path: Path) -> None:
    copy = tmp_path / "digits.edge"
    copy.write_bytes(DIGITS.read_bytes())
    options = {"memory_limit": None, "threads": 1, "batch": 1, "symbols": {}}
    found = coldstart.measure(str(copy), {"digits": np.zeros((1, 1, 8, 8), np.float32)}, options, 2)
    assert found is not None and found["times"] == 2 and found["file_bytes"] == copy.stat().st_size
    assert found["total"] == pytest.approx(sum(found[key] for key in ("process", "import", "open", "first")))
    assert all(found[key] > 0 for key in ("process", "import", "open", "first"))
    assert coldstart.measure(str(copy), {}, options, 0) is None


def test_failed_cold_start_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from edgeinfer import EdgeInferError

    (tmp_path / "broken.edge").write_bytes(b"nothing")
    with pytest.raises(EdgeInferError, match="broken.edge"):
        coldstart.measure(str(tmp_path / "broken.edge"), {}, {}, 1)


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_surroundings_of_a_board_that_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "50000")
    write(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", "0")
    write(tmp_path, "sys/class/powercap/intel-rapl:0/energy_uj", "1000000")
    clock = iter([10.0, 12.0, 20.0, 21.0])
    monkeypatch.setattr(measurement.time, "perf_counter", lambda: next(clock))
    around = measurement.Surroundings(str(tmp_path))
    around.begin()
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "81000")
    write(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", "40004")
    write(tmp_path, "sys/class/powercap/intel-rapl:0/energy_uj", "7000000")
    around.end()
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "70000")
    write(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", "40000")
    around.begin()
    write(tmp_path, "sys/class/powercap/intel-rapl:0/energy_uj", "500000")  # wrapped: this turn cannot count
    around.end()
    found = around.document(samples_per_s=2.0)
    assert found["temperature_celsius"] == {"before": 50.0, "after": 70.0, "most": 81.0}
    assert found["throttling"] == {"during": ["throttled"], "since_boot": ["throttled"]}
    assert found["energy"] == {"watts": 3.0, "joules_per_sample": 1.5, "joules": 6.0, "source": "counter"}
    assert len(measurement.surroundings_lines(found)) == 2


def test_surroundings_of_a_board_with_a_power_sensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "sys/class/hwmon/hwmon0/power1_input", "2000000")
    clock = iter([0.0, 4.0])
    monkeypatch.setattr(measurement.time, "perf_counter", lambda: next(clock))
    around = measurement.Surroundings(str(tmp_path))
    around.begin()
    write(tmp_path, "sys/class/hwmon/hwmon0/power1_input", "4000000")
    around.end()
    energy = around.document(samples_per_s=10.0)["energy"]
    assert energy == {"watts": 3.0, "joules_per_sample": 0.3, "joules": 12.0, "source": "power sensor"}


def test_surroundings_of_a_board_that_tells_nothing(tmp_path: Path) -> None:
    around = measurement.Surroundings(str(tmp_path))
    around.begin()
    around.end()
    found = around.document(samples_per_s=1.0)
    assert found["temperature_celsius"] is None and found["energy"] is None and found["throttling"] is None and found["clock_mhz"] is None
    assert measurement.surroundings_lines(found) == []


class Balance(html.parser.HTMLParser):
    """Complains about tags that are not closed and about anything that would be loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        assert tag not in ("script", "link", "img", "iframe", "b")
        assert not any(name in ("src", "href") or "url(" in (value or "") for name, value in attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = tmp_path / "<b>&.edge"
    os.link(DIGITS, evil) if os.stat(DIGITS).st_dev == os.stat(tmp_path).st_dev else evil.write_bytes(DIGITS.read_bytes())
    report = tmp_path / "report.html"
    found = bench(capsys, evil, "--batches", "1,2", "--report", report, "--threads", "1")
    text = report.read_text()
    reader = Balance()
    reader.feed(text)
    assert reader.open == [] and reader.seen.count("svg") == 6
    assert "&lt;b&gt;&amp;.edge" in text and f"{found['runs']}" in text
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["<b>&.edge", "report.html"]


def test_page_of_one_run_with_a_peer() -> None:
    """A single run has no spread, and a peer has a row."""
    latency = {"min": 1.0, "p50": 1.0, "p90": 1.0, "p99": 1.0, "first": 2.0}
    rss = {"baseline": 1, "peak": 2, "predicted_peak": 3, "ceiling": None, "anonymous": 1, "file": 1}
    peer = {
        "version": "1",
        "runs": 1,
        "load_ms": 1.0,
        "latency_ms": latency,
        "rss_bytes": {"peak": 9},
        "latency_ratio_p50": 0.5,
        "rss_ratio": 0.2,
    }
    measured = {
        "model": "m", "threads": 1, "batch": 1, "runs": 1, "kernels": "plain", "latency_ms": latency, "throughput_per_s": 1.0,
        "load_ms": 1.0, "decode_ms": 1.0, "compute_ms": 1.0, "rss_bytes": rss, "model_bytes": {"fp32": 4, "compressed": 1},
        "faults": {"major": 0, "minor": 0}, "board": {"name": None, "memory_bytes": None, "governor": None},
        "temperature_celsius": None, "clock_mhz": None, "throttling": None, "energy": None,
        "against": {"other": peer}, "batches": [{"batch": 9, "error": "no plan"}], "cold_start_ms": None,
    }  # fmt: skip
    text = page(measured, [{"name": "l", "op": "Conv", "ms": 1.0}], [1e-3])
    Balance().feed(text)
    assert "other 1" in text and "no plan" in text


def test_against_ncnn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ncnn")
    (tmp_path / "m.param").write_text("7767517\n2 2\nInput in0 0 1 in0 0=8 1=8 2=1\nReLU relu 1 1 in0 out0\n")
    (tmp_path / "m.bin").write_bytes(b"")
    peer = bench(capsys, DIGITS, "--against", f"ncnn:{tmp_path / 'm.param'}", "--batch", "2", "--cold-starts", "0")["against"]["ncnn"]
    assert peer["runs"] >= 1 and peer["rss_bytes"]["peak"] > 1 << 20
    (tmp_path / "m.param").write_text("not ncnn's")
    arguments = ["bench", str(DIGITS), "--against", f"ncnn:{tmp_path / 'm.param'}", "--duration", "10ms", "--warmup", "0"]
    assert main(arguments) == 2
    assert "ncnn" in capsys.readouterr().err


def test_a_folder_of_models_in_one_table(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "on_device.sh"
    models, out = tmp_path / "models", tmp_path / "out"
    models.mkdir()
    (models / "digits.edge").write_bytes(DIGITS.read_bytes())
    (models / "broken.edge").write_bytes(b"nothing")
    environment = {**os.environ, "EDGEINFER": f"{sys.executable} -m edgeinfer.cli", "PYTHON": sys.executable}
    options = ["--duration", "20ms", "--warmup", "0", "--cold-starts", "0", "--threads", "1"]
    command = ["bash", str(script), str(models), "-o", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1 and "broken.edge" in done.stderr  # said, and the others are measured all the same
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) == 3 and len({len(row) for row in rows}) == 1 and rows[2][0].strip() == "digits"
    assert float(rows[2][1]) > 0 and done.stdout == (out / "table.md").read_text()
    assert sorted(path.name for path in out.iterdir()) == ["digits.html", "digits.json", "table.md"]
    assert subprocess.run(["bash", script, tmp_path / "none"], capture_output=True, check=False).returncode == 2
