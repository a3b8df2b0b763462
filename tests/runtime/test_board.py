"""What the board reports, on faked /proc and /sys trees: a Raspberry Pi, a PC, a machine that tells nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeinfer.runtime import board


def tree(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def raspberry(root: Path) -> str:
    return tree(
        root,
        {
            "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
            "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\nModel\t: Raspberry Pi 4\n",
            "proc/meminfo": "MemTotal:  3884072 kB\nMemFree: 1 kB\nMemAvailable: 2048000 kB\nSwapTotal: 102396 kB\n",
            "sys/class/thermal/thermal_zone0/temp": "64231\n",
            "sys/class/thermal/thermal_zone1/temp": "bad\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "600000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1500000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
        },
    )


def test_raspberry_pi(tmp_path: Path) -> None:
    root = raspberry(tmp_path)
    assert board.model_name(root) == "Raspberry Pi 4 Model B Rev 1.4"
    assert board.cpu_features(root) == ["asimd"]
    assert board.memory(root) == {"total": 3884072 * 1024, "available": 2048000 * 1024, "swap": 102396 * 1024}
    assert board.temperature(root) == 64.231
    assert board.throttling(root) == board.Throttling(("under-voltage", "throttled"), ("under-voltage", "throttled"))
    assert board.clock(root) == (600.0, 1500.0)
    assert board.governor(root) == "ondemand"
    assert board.energy(root) is None


def test_pc(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/cpuinfo": "model name\t: Some CPU\nflags\t\t: fpu sse2 avx2 fma bmi2\n",
            "sys/class/powercap/intel-rapl:0/energy_uj": "12500000\n",
        },
    )
    assert board.model_name(root) == "Some CPU"
    assert board.cpu_features(root) == ["avx2", "fma", "bmi2"]
    assert board.energy(root) == 12.5
    assert board.throttling(root) is None


def test_under_voltage_sensor(tmp_path: Path) -> None:
    root = tree(tmp_path, {"sys/class/hwmon/hwmon1/name": "rpi_volt\n", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n"})
    assert board.throttling(root) == board.Throttling(("under-voltage",), ())


def test_silent_machine(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert board.model_name(root) is None and board.temperature(root) is None and board.clock(root) is None
    assert board.cpu_features(root) == [] and board.memory(root) == {} and board.governor(root) is None


def test_sensors_of_energy_and_power(tmp_path: Path) -> None:
    root = tree(tmp_path, {"sys/class/hwmon/hwmon1/energy1_input": "7000000\n", "sys/class/hwmon/hwmon2/power1_input": "4250000\n"})
    assert board.energy(root) == 7.0
    assert board.power(root) == 4.25
    assert board.power(str(tmp_path / "nothing")) is None


def test_power_controller_of_a_raspberry_pi_5(tmp_path: Path) -> None:
    said = "   3V3_SYS_A current(1)=0.10000000A\n   VDD_CORE_A current(7)=2.00000000A\n   3V3_SYS_V volt(9)=3.30000000V\n"
    said += "   VDD_CORE_V volt(15)=0.90000000V\n   EXT5V_V volt(24)=5.10000000V\n   garbage\n   BATT_V volt(25)=?V\n"
    assert board.pmic_watts(said) == pytest.approx(0.1 * 3.3 + 2 * 0.9)  # rails without a current do not count
    assert board.pmic_watts("VCHI initialization failed") is None
    root = tree(tmp_path, {"proc/device-tree/model": "Raspberry Pi 5 Model B\0", "usr/bin/vcgencmd": f"#!/bin/sh\ncat <<END\n{said}END\n"})
    (tmp_path / "usr/bin/vcgencmd").chmod(0o755)
    assert board.power(root) == pytest.approx(2.13)
    (tmp_path / "usr/bin/vcgencmd").write_text("#!/bin/sh\nexit 1\n")
    assert board.power(root) is None
