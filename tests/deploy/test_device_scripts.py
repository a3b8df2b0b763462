"""The device tests' own manners: without root they say that they skip, and touch nothing. (Their stages run by make device-test.)"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "device"
SCRIPTS = sorted(FOLDER.glob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_valid(script: Path) -> None:
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


def test_without_root_all_is_skipped_and_said(tmp_path: Path) -> None:
    command = ["bash", str(FOLDER / "device_test.sh"), "short"]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv to be somebody else than root")
        # the script through a pipe: another user may not be able to enter this folder
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-s", "short"]
    home = tmp_path / "home"
    script = (FOLDER / "device_test.sh").read_text()
    done = subprocess.run(
        command, input=script, capture_output=True, text=True, check=False, env={**os.environ, "HOME": str(home)}, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert "not root" in done.stdout and done.stdout.endswith("0 passed, 0 failed, 1 skipped\n") and not home.exists()


def test_unknown_stages_are_named(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("without root nothing is looked at")
    environment = {**os.environ, "EDGEINFER_DEVICE_CACHE": str(tmp_path)}
    done = subprocess.run(["bash", FOLDER / "device_test.sh", "warp"], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2 and "warp" in done.stderr and list(tmp_path.iterdir()) == []
