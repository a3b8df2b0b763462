"""What the doctor makes of its findings, on faked devices."""

from __future__ import annotations

from pathlib import Path

from edgeinfer.cli import doctor


def device(root: Path, files: dict[str, str]) -> dict:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return doctor.survey(str(root), str(root))


def test_stock_raspberry_pi_os(tmp_path: Path) -> None:
    found = device(
        tmp_path,
        {
            "proc/self/cgroup": "0::/user.slice\n",
            "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids\n",
            "sys/fs/cgroup/user.slice/memory.max": "67108864\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n",
            "sys/class/thermal/thermal_zone0/temp": "81000\n",
            "proc/meminfo": "MemTotal: 436000 kB\nMemAvailable: 300000 kB\n",
        },
    )
    assert found["cgroup"] == {"limit": None, "version": 0, "enforced": False, "path": ""}
    words = " ".join(found["advice"])
    assert "MemoryMax= of systemd does nothing" in words
    assert "power supply is too weak" in words and "slows down now" not in words
    assert "81 degrees" in words
    assert found["storage"]["bytes_per_s"] is None and str(tmp_path) in found["storage"]["reason"]
    assert "81 degrees" in doctor._text(found)


def test_control_group_of_64_mib(tmp_path: Path) -> None:
    found = device(
        tmp_path,
        {
            "proc/self/cgroup": "0::/app.slice/demo\n",
            "sys/fs/cgroup/cgroup.controllers": "cpuset memory pids\n",
            "sys/fs/cgroup/app.slice/memory.max": "67108864\n",
            "sys/fs/cgroup/app.slice/demo/memory.max": "max\n",
        },
    )
    assert found["cgroup"]["limit"] == 64 << 20 and found["cgroup"]["enforced"]
    assert any("64.0 MiB" in words and "--memory-limit" in words for words in found["advice"])


def test_storage_is_read_but_not_written(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(bytes(1000))
    (tmp_path / "large").write_bytes(bytes(2 << 20))
    (tmp_path / "link").symlink_to("/dev/zero")
    before = sorted(tmp_path.iterdir())
    found = doctor.read_rate(tmp_path)
    assert found["file"] == str(tmp_path / "large") and found["bytes"] == 2 << 20 and found["bytes_per_s"] > 0
    assert sorted(tmp_path.iterdir()) == before
