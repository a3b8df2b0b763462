"""deploy/install.sh into a temporary prefix: refuses what is not its own, installs, runs, leaves nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy" / "install.sh"


def install(*arguments: object, **environment: object) -> subprocess.CompletedProcess:
    surroundings = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    return subprocess.run([SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False, env=surroundings)


def test_help() -> None:
    done = install("--help")
    assert done.returncode == 0 and "--uninstall" in done.stdout and "set -eu" not in done.stdout


def test_options_that_make_no_sense() -> None:
    assert install("--prefx", "x").returncode == 2
    assert install("--prefix").returncode == 2


def test_touches_only_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("precious")
    done = install("--prefix", tmp_path / "mine", "--bin", tmp_path / "bin")
    assert done.returncode == 1 and "choose another --prefix" in done.stderr
    done = install("--prefix", tmp_path / "mine", "--bin", tmp_path / "bin", "--uninstall")
    assert done.returncode == 1 and (tmp_path / "mine" / "file").read_text() == "precious"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "edgeinfer").write_text("another one")
    done = install("--prefix", tmp_path / "new", "--bin", tmp_path / "bin")
    assert done.returncode == 1 and "choose another --bin" in done.stderr and not (tmp_path / "new").exists()


def test_missing_python_is_named(tmp_path: Path) -> None:
    done = install("--prefix", tmp_path / "p", "--bin", tmp_path / "b", "--python", "python3.nowhere")
    assert done.returncode == 1 and "python3.nowhere" in done.stderr and "apt install" in done.stderr
    assert not (tmp_path / "p").exists()


@pytest.mark.slow
def test_install_run_uninstall(tmp_path: Path) -> None:
    prefix, bin_folder = tmp_path / "p", tmp_path / "b"
    units, etc, models = tmp_path / "units", tmp_path / "etc", tmp_path / "models"
    places = {"EDGEINFER_UNITS": units, "EDGEINFER_ETC": etc, "EDGEINFER_MODELS": models}
    etc.mkdir()
    (etc / "serve.yaml").write_text("mine")
    done = install("--prefix", prefix, "--bin", bin_folder, "--service", **places)
    assert done.returncode == 0, done.stderr
    assert f"\nExecStart={bin_folder}/edgeinfer serve " in (units / "edgeinfer.service").read_text()
    assert (units / "edgeinfer.socket").exists() and models.is_dir() and (etc / "serve.yaml").read_text() == "mine"
    command = bin_folder / "edgeinfer"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    said = subprocess.run([command, "doctor", "--json"], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment).stdout
    assert '"kernels"' in said
    assert install("--prefix", prefix, "--bin", bin_folder, "--uninstall", **places).returncode == 0
    assert sorted(tmp_path.iterdir()) == sorted([bin_folder, units, etc, models])  # configuration and models are the user's
    assert [list(folder.iterdir()) for folder in (bin_folder, units)] == [[], []]
