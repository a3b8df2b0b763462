"""The board under the process: its name, CPU features, memory, temperature, throttling, energy.

Only this module reads temperature, throttling and energy. Every value is ``None`` or empty where the board does not report it. ``root``
stands for ``/``, so that tests can fake ``/proc`` and ``/sys``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: bits of the Raspberry Pi firmware's "throttled" word: now; the same 16 bits higher: since boot
_THROTTLE_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}

#: CPU flags that the kernels ask for, as /proc/cpuinfo spells them
_FLAGS = (
    "avx2",
    "fma",
    "f16c",
    "bmi2",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vbmi",
    "avx512_vbmi2",
    "neon",
    "asimd",
    "asimddp",
    "asimdhp",
    "i8mm",
)


@dataclass(frozen=True)
class Throttling:
    """Why the board slows its clock down: names of what holds now, and of what happened since boot."""

    now: tuple[str, ...]
    since_boot: tuple[str, ...]


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _read(path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def model_name(root: str = "/") -> str | None:
    """Name of the board (device tree) or, without one, of the CPU."""
    name = _read(Path(root, "proc/device-tree/model"))
    if name:
        return name
    return _cpuinfo(root, ("model name", "Model", "Hardware"))


def _cpuinfo(root: str, keys: tuple[str, ...]) -> str | None:
    for line in (_read(Path(root, "proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in keys and value.strip():
            return value.strip()
    return None


def cpu_features(root: str = "/") -> list[str]:
    """Instruction sets of the CPU that matter to the kernels, as /proc/cpuinfo spells them."""
    found = set((_cpuinfo(root, ("flags", "Features")) or "").split())
    return [flag for flag in _FLAGS if flag in found]


def memory(root: str = "/") -> dict[str, int]:
    """Bytes of RAM: ``total``, ``available``, and ``swap``; without what /proc/meminfo does not tell."""
    keys = {"MemTotal": "total", "MemAvailable": "available", "SwapTotal": "swap"}
    found = {}
    for line in (_read(Path(root, "proc/meminfo")) or "").splitlines():
        key, _, value = line.partition(":")
        if key in keys:
            found[keys[key]] = int(value.split()[0]) * 1024
    return found


def temperature(root: str = "/") -> float | None:
    """The hottest thermal zone, in degrees Celsius."""
    zones = [_number(zone / "temp") for zone in sorted(Path(root, "sys/class/thermal").glob("thermal_zone*"))]
    celsius = [milli / 1000 for milli in zones if milli is not None and milli > 0]
    return max(celsius, default=None)


def throttling(root: str = "/") -> Throttling | None:
    """What the Raspberry Pi firmware says about throttling; elsewhere, what the under-voltage sensor says; ``None`` where nothing does."""
    for place in sorted(Path(root, "sys/devices/platform").glob("soc*/soc*firmware/get_throttled")):
        text = _read(place)
        if text is None:
            continue
        try:
            word = int(text, 16)
        except ValueError:
            continue
        return Throttling(
            tuple(name for bit, name in _THROTTLE_BITS.items() if word >> bit & 1),
            tuple(name for bit, name in _THROTTLE_BITS.items() if word >> (bit + 16) & 1),
        )
    for sensor in sorted(Path(root, "sys/class/hwmon").glob("hwmon*")):
        if _read(sensor / "name") == "rpi_volt":
            alarm = _number(sensor / "in0_lcrit_alarm")
            if alarm is not None:
                return Throttling(("under-voltage",) if alarm else (), ())
    return None


def clock(root: str = "/") -> tuple[float, float] | None:
    """Clock of CPU 0 in MHz: (now, most), where the kernel scales it."""
    folder = Path(root, "sys/devices/system/cpu/cpu0/cpufreq")
    now, most = _number(folder / "scaling_cur_freq"), _number(folder / "cpuinfo_max_freq")
    return None if now is None or most is None else (now / 1000, most / 1000)


def governor(root: str = "/") -> str | None:
    """The rule by which the kernel scales the clock of CPU 0 (``ondemand``, ``performance``)."""
    return _read(Path(root, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"))


def energy(root: str = "/") -> float | None:
    """A counter of joules that the CPU package took, where the board has one; differences of two readings are meaningful until it wraps."""
    micro = _number(Path(root, "sys/class/powercap/intel-rapl:0/energy_uj"))
    return None if micro is None else micro / 1e6
