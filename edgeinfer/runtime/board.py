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
    """A counter of joules, where the board has one: of the CPU package (RAPL), else of the first energy sensor. Differences of two
    readings are meaningful until it wraps."""
    places = [Path(root, "sys/class/powercap/intel-rapl:0/energy_uj")]
    places += sorted(Path(root, "sys/class/hwmon").glob("hwmon*/energy*_input"))
    for place in places:
        micro = _number(place)
        if micro is not None:
            return micro / 1e6
    return None


def power(root: str = "/") -> float | None:
    """Watts that the board takes now: from a power sensor (INA219 and its like), else from the power controller of a Raspberry Pi 5.

    The latter asks ``vcgencmd``, a program of Raspberry Pi OS (a few milliseconds); its rails leave out what USB devices take.
    """
    for sensor in sorted(Path(root, "sys/class/hwmon").glob("hwmon*/power*_input")):
        micro = _number(sensor)
        if micro is not None:
            return micro / 1e6
    program = Path(root, "usr/bin/vcgencmd")
    if not program.exists() or "Raspberry Pi 5" not in (model_name(root) or ""):
        return None
    import subprocess

    try:
        said = subprocess.run([str(program), "pmic_read_adc"], capture_output=True, text=True, timeout=2, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return pmic_watts(said)


def pmic_watts(said: str) -> float | None:
    """Sum over the rails of ``vcgencmd pmic_read_adc``: lines ``NAME_A current(N)=0.05A`` and ``NAME_V volt(N)=3.31V`` belong together."""
    amperes: dict[str, float] = {}
    volts: dict[str, float] = {}
    for line in said.splitlines():
        name, _, reading = line.strip().partition(" ")
        number = reading.partition("=")[2][:-1]
        try:
            if name.endswith("_A") and reading.endswith("A"):
                amperes[name[:-2]] = float(number)
            elif name.endswith("_V") and reading.endswith("V"):
                volts[name[:-2]] = float(number)
        except ValueError:
            continue
    rails = amperes.keys() & volts.keys()
    return sum(amperes[rail] * volts[rail] for rail in rails) if rails else None
