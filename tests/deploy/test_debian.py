"""deploy/debian/build.sh on wheels made of thin air: what goes where, which Pythons the package wants, what it refuses."""

from __future__ import annotations

import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy" / "debian" / "build.sh"
VERSION = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]  # type: ignore[index]

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")


def wheel(folder: Path, python: str, machine: str = "aarch64", text: str = "__version__ = 1\n") -> None:
    tag = "cp" + python.replace(".", "")
    with zipfile.ZipFile(folder / f"edgeinfer-{VERSION}-{tag}-{tag}-manylinux_2_34_{machine}.whl", "w") as archive:
        archive.writestr("edgeinfer/__init__.py", text)
        archive.writestr(f"edgeinfer/kernels/codec.cpython-{python.replace('.', '')}-{machine}-linux-gnu.so", python)
        archive.writestr(f"edgeinfer-{VERSION}.dist-info/METADATA", "Name: edgeinfer\n")
        archive.writestr(f"edgeinfer-{VERSION}.dist-info/entry_points.txt", "[console_scripts]\nedgeinfer = edgeinfer.cli:main\n")


def build(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", SCRIPT, "-w", folder, *arguments], capture_output=True, text=True, check=False)


def field(package: Path, name: str) -> str:
    return subprocess.run(["dpkg-deb", "-f", package, name], capture_output=True, text=True, check=True).stdout.strip()


def test_one_package_for_two_pythons(tmp_path: Path) -> None:
    wheel(tmp_path, "3.11")
    wheel(tmp_path, "3.13")
    done = build(tmp_path, "arm64")
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("*.deb")
    assert package.name == f"edgeinfer_{VERSION}-1_arm64.deb" and field(package, "Architecture") == "arm64"
    depends = field(package, "Depends")
    assert "python3 (>= 3.11), python3 (<< 3.14), python3 (<< 3.12) | python3 (>= 3.13)" in depends and "libc6 (>= 2.34)" in depends
    for name in ("numpy", "psutil", "yaml", "waitress"):
        assert f"python3-{name}" in depends
    listing = subprocess.run(["dpkg-deb", "-c", package], capture_output=True, text=True, check=True).stdout
    for place in (
        "/usr/bin/edgeinfer", "/var/lib/edgeinfer/models/", "codec.cpython-311-aarch64", "codec.cpython-313-aarch64",
        "/usr/share/man/man1/edgeinfer.1.gz", "/usr/share/doc/edgeinfer/copyright",
    ):  # fmt: skip
        assert place in listing
    assert "root/root" in listing and "RECORD" not in listing and " ./root" not in listing
    again = package.read_bytes()
    assert build(tmp_path, "arm64").returncode == 0 and package.read_bytes() == again  # the same wheels, the same package


def test_a_python_alone(tmp_path: Path) -> None:
    wheel(tmp_path, "3.11", "armv7l")
    assert build(tmp_path).returncode == 0
    (package,) = tmp_path.glob("*.deb")
    assert field(package, "Architecture") == "armhf" and "python3 (>= 3.11), python3 (<< 3.12)," in field(package, "Depends")


def test_wheels_that_differ_are_refused(tmp_path: Path) -> None:
    wheel(tmp_path, "3.11")
    wheel(tmp_path, "3.13", text="__version__ = 2\n")
    done = build(tmp_path, "arm64")
    assert done.returncode == 1 and "differ" in done.stderr and not list(tmp_path.glob("*.deb"))


def test_no_wheels(tmp_path: Path) -> None:
    assert build(tmp_path).returncode == 1 and build(tmp_path, "armhf").returncode == 1
    assert "deploy/wheels.sh" in build(tmp_path, "armhf").stderr
    assert build(tmp_path, "sparc").returncode == 1


def test_versions_agree() -> None:
    """The package's changelog, the project, and the module say the same version."""
    import edgeinfer

    changelog = (ROOT / "deploy" / "debian" / "changelog").read_text()
    assert edgeinfer.__version__ == VERSION and re.match(r"edgeinfer \((.*)-\d+\) ", changelog)[1] == VERSION  # type: ignore[index]


@pytest.mark.parametrize("script", ["preinst", "postinst", "prerm", "postrm"])
def test_maintainer_scripts_are_valid_and_stop_at_errors(script: str) -> None:
    path = SCRIPT.parent / script
    assert subprocess.run(["sh", "-n", path], check=False).returncode == 0
    assert "\nset -e\n" in path.read_text()
