"""Footprint, control groups and the monitor, on faked systems where the real one cannot be bent."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edgeinfer.errors import UsageError
from edgeinfer.runtime import ceiling
from edgeinfer.runtime.arena import Mapping


def test_the_footprint_follows_touched_memory() -> None:
    before = ceiling.footprint()
    memory = Mapping(32 << 20)
    assert ceiling.footprint() - before < 4 << 20, "an untouched mapping costs nothing"
    memory.view(0, (32 << 20,), "uint8")[...] = 1
    assert ceiling.footprint() - before > 30 << 20
    memory.release()
    assert ceiling.footprint() - before < 4 << 20
    assert ceiling.peak_footprint() >= before + (30 << 20)
    assert memory.view(0, (4,), "uint8").tolist() == [0, 0, 0, 0]
    memory.close()


def test_the_split_sums_to_the_footprint() -> None:
    anonymous, file = ceiling.split_footprint()
    assert abs(anonymous + file - ceiling.footprint()) < 2 << 20


def fake(tmp_path: Path, cgroup: str, files: dict[str, str]) -> tuple[str, str]:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = tmp_path / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(tmp_path / "proc"), str(tmp_path / "sys")


def test_version_2_takes_the_least_limit_on_the_way_up(tmp_path: Path) -> None:
    files = {"cgroup.controllers": "cpu memory", "a/b/memory.max": "max\n", "a/memory.max": "67108864\n"}
    found = ceiling.cgroup_limit(*fake(tmp_path, "0::/a/b\n", files))
    assert (found.limit, found.version, found.enforced) == (64 << 20, 2, True)


def test_version_1(tmp_path: Path) -> None:
    files = {"memory/x/memory.limit_in_bytes": "50000000", "memory/memory.limit_in_bytes": "9223372036854771712"}
    found = ceiling.cgroup_limit(*fake(tmp_path, "5:memory:/x\n1:cpu:/y\n", files))
    assert (found.limit, found.version) == (50000000, 1)


def test_a_disabled_controller_is_seen(tmp_path: Path) -> None:
    found = ceiling.cgroup_limit(*fake(tmp_path, "0::/\n", {"cgroup.controllers": "cpu io"}))
    assert (found.limit, found.enforced) == (None, False)


def test_no_control_groups_at_all(tmp_path: Path) -> None:
    assert not ceiling.cgroup_limit(str(tmp_path / "proc"), str(tmp_path / "sys")).enforced


def test_the_monitor_speaks_up_only_while_it_watches() -> None:
    seen: list[int] = []
    raised = threading.Event()
    now = [100]

    def flag(value: int) -> None:
        seen.append(value)
        raised.set()

    monitor = ceiling.Monitor(1000, flag, measure=lambda: now[0])
    now[0] = 2000
    assert not raised.wait(0.1), "nobody watches yet"
    monitor.watch()
    assert raised.wait(5)
    monitor.rest()
    assert seen[0] == 2000
    monitor.close()
    assert not any(t.name == "edgeinfer-ceiling" and t.is_alive() for t in threading.enumerate())


def test_a_senseless_limit() -> None:
    with pytest.raises(UsageError, match="-5"):
        ceiling.Monitor(-5, lambda now: None)
