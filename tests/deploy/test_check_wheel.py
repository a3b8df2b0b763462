"""deploy/check_wheel.py finds what is wrong with a compiled module: each fault is made with the compiler."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "check_wheel.py"
spec = importlib.util.spec_from_file_location("check_wheel", SCRIPT)
assert spec is not None and spec.loader is not None
check_wheel = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_wheel)

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or not all(shutil.which(tool) for tool in ("gcc", "readelf", "objdump")),
    reason="needs a PC, gcc and binutils",
)
GOOD = ("-shared", "-fPIC", "-Wl,-s")


def built(folder: Path, source: str, *flags: str, name: str = "m.so") -> Path:
    (folder / "m.c").write_text(source)
    subprocess.run(["gcc", "-O2", "-o", str(folder / name), str(folder / "m.c"), *flags], check=True, capture_output=True)
    return folder / name


def test_a_good_module(tmp_path: Path) -> None:
    module = built(tmp_path, "#include <math.h>\ndouble f(double x) { return cosf(x); }", *GOOD, "-lm")
    assert check_wheel.check_module(module, "x86_64") == []
    assert (2, 2) <= check_wheel.floor(module, "x86_64") < (2, 40)


@pytest.mark.parametrize(
    ("source", "flags", "complaint"),
    [
        ("int x;", ("-shared", "-fPIC"), "is not stripped"),
        ("int x;", (*GOOD, "-Wl,-rpath,/home/me/lib"), "looks for libraries in /home/me/lib"),
        ("int x;", (*GOOD, "-Wl,-z,execstack"), "executable stack"),
        ("void ei_lost(void); void f(void) { ei_lost(); }", GOOD, "lacks ei_lost"),
        ("#include <dlfcn.h>\nint x;", (*GOOD, "-Wl,--no-as-needed", "-lgcc_s", "-lresolv"), "needs libresolv.so.2"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, source: str, flags: tuple[str, ...], complaint: str) -> None:
    assert any(complaint in what for what in check_wheel.check_module(built(tmp_path, source, *flags), "x86_64"))


def test_a_module_for_another_machine(tmp_path: Path) -> None:
    assert any("is for Advanced Micro Devices" in what for what in check_wheel.check_module(built(tmp_path, "int x;", *GOOD), "aarch64"))


def test_instructions_beyond_the_base_set(tmp_path: Path) -> None:
    source = "float f(const float *a, int n) { float s = 0; for (int i = 0; i < n; i++) s += a[i] * a[i]; return s; }\n"
    plain = built(tmp_path, source, "-c", "-ffast-math", "-O3", name="plain.o")
    assert check_wheel.beyond_base(plain, "x86_64") == {}
    fast = built(tmp_path, source, "-c", "-ffast-math", "-O3", "-mavx2", name="fast.o")
    assert any(name.startswith("v") for name in check_wheel.beyond_base(fast, "x86_64")["f"])
    guarded = source.replace("float f", "float crc_instruction")
    assert check_wheel.beyond_base(built(tmp_path, guarded, "-c", "-mavx2", "-O3", name="guarded.o"), "x86_64") == {}


@pytest.mark.parametrize(
    ("architecture", "beyond", "base"),
    [
        ("aarch64", ["sdot", "ldaddal", "cas", "swpal", "crc32cx", "fmlal2"], ["fmla", "ldr", "stxr", "smull", "sqrdmulh", "csel"]),
        ("armv7l", ["vsdot.s8", "sdiv", "vfma.f32", "vrintn.f32", "lda"], ["vmla.f32", "ldmia", "strex", "vmul.f32", "vldmia"]),
        (
            "x86_64",
            ["vaddps", "pshufb", "pmulld", "crc32q", "popcnt", "kmovw", "pmaxsd", "shlx"],
            ["addps", "pmaxsw", "pinsrw", "shl", "pminub", "por"],
        ),
    ],
)
def test_mnemonics(architecture: str, beyond: list[str], base: list[str]) -> None:
    pattern = check_wheel.BEYOND[architecture]
    assert [name for name in beyond if not pattern.match(name)] == []
    assert [name for name in base if pattern.match(name)] == []


def test_a_wheel_without_modules_is_refused(tmp_path: Path) -> None:
    import zipfile

    wheel = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("x/a.pyx", "")
    done = subprocess.run([sys.executable, SCRIPT, "--architecture", "x86_64", wheel], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "0 compiled modules" in done.stdout and "a.pyx" in done.stdout


def test_every_package_is_named_in_pyproject() -> None:
    """A package that is not named is in no wheel, while an editable install finds it all the same."""
    import re

    root = SCRIPT.parents[1]
    line = re.search(r"^packages = \[(.*)\]$", (root / "pyproject.toml").read_text(), re.MULTILINE)
    assert line is not None
    named = set(re.findall(r'"([\w.]+)"', line[1]))
    there = {".".join(path.parent.relative_to(root).parts) for path in (root / "edgeinfer").rglob("__init__.py")}
    assert named == there
