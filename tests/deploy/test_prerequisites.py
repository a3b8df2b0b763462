"""What `make` says on a machine that lacks something: one message, all packages. Machines are faked by a PATH of small scripts."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy" / "prerequisites.sh"

#: a Python that answers the script's questions as told: version, venv, Python.h
PYTHON = """#!/bin/sh
case "$2" in
    *'print("%d.%d"'*) echo {version} ;;
    *version_info*) exit {old} ;;
    *ensurepip*) exit {no_venv} ;;
    *Python.h*) exit {no_header} ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path):
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("sh", "basename"):
        (folder / tool).symlink_to(shutil.which(tool))

    def script(name: str, text: str) -> None:
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    def check(
        *, python: str | None = "3.11", name: str = "python3", venv=True, header=True, compiler=True, libc=True, make=True, apt=(), more=()
    ):
        if python is not None:
            old = int(int(python.partition(".")[2]) < 10)
            script(name, PYTHON.format(version=python, old=old, no_venv=int(not venv), no_header=int(not header)))
        if compiler:
            script("gcc", f"#!/bin/sh\nwhile read line; do :; done\nexit {int(not libc)}\n")
        if make:
            script("make", "#!/bin/sh\n")
        if apt:
            script("apt-cache", "#!/bin/sh\ncase $2 in " + "|".join(apt) + ") ;; *) exit 100 ;; esac\n")
        for other in more:
            script(other, "#!/bin/sh\n")
        done = subprocess.run([folder / "sh", SCRIPT, name], env={"PATH": str(folder)}, capture_output=True, text=True, check=False)
        assert done.stdout == ""
        return done.returncode, done.stderr

    return check


def test_nothing_missing(machine) -> None:
    assert machine() == (0, "")


def test_bare_machine(machine) -> None:
    code, said = machine(python=None, compiler=False, make=False)
    assert code == 1 and "there is no python3" in said
    assert said.rstrip().endswith("sudo apt install python3 python3-venv python3-dev gcc make")


@pytest.mark.parametrize(
    ("lacking", "packages"),
    [
        ({"venv": False}, "python3-venv"),
        ({"header": False}, "python3-dev"),
        ({"compiler": False}, "gcc"),
        ({"libc": False}, "libc6-dev"),
        ({"make": False}, "make"),
        ({"venv": False, "header": False, "compiler": False, "make": False}, "python3-venv python3-dev gcc make"),
        ({"name": "python3.12", "python": "3.12", "venv": False, "header": False}, "python3.12-venv python3.12-dev"),
    ],
)
def test_missing_packages_are_listed_together(machine, lacking: dict, packages: str) -> None:
    code, said = machine(**lacking)
    assert code == 1 and said.count("\n") == 2
    assert said.rstrip().endswith(f"sudo apt install {packages}")


def test_old_python(machine) -> None:
    code, said = machine(python="3.9")
    assert code == 1 and "Python 3.9" in said and "3.10 or newer" in said and "Debian 12" in said


def test_old_python_beside_a_newer_one(machine) -> None:
    code, said = machine(python="3.9", more=["python3.12"])
    assert code == 1 and "make PYTHON=python3.12" in said and "python3.12-venv python3.12-dev" in said


def test_old_python_with_a_newer_package(machine) -> None:
    code, said = machine(python="3.9", apt=["python3.11"])
    assert code == 1 and "sudo apt install python3.11 python3.11-venv python3.11-dev" in said and "make PYTHON=python3.11" in said


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_stops_with_the_message(tmp_path: Path) -> None:
    for name in ("Makefile", "setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    (tmp_path / "cython").mkdir()
    done = subprocess.run(["make", "demo", "PYTHON=python3.nowhere"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "there is no python3.nowhere" in done.stderr and "sudo apt install" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_make_explains_itself(tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True, env={**os.environ, "MAKEFLAGS": ""}
    )
    for target in ("demo", "test", "bench", "clean"):
        assert f"make {target}" in done.stdout
