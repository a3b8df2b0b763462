"""The systemd units and the sample configuration: valid, tight, explained, and of one mind with the service."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from edgeinfer.serve import config
from edgeinfer.serve.systemd import HIGH_MARGIN, MAX_MARGIN, unit_limits
from edgeinfer.sizes import parse_size

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNITS = [DEPLOY / "edgeinfer.service", DEPLOY / "edgeinfer.socket"]
analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def directives(path: Path) -> dict[str, str]:
    """The last value of each directive."""
    lines = [line for line in path.read_text().splitlines() if line and line[0] not in "#["]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_every_directive_is_explained(path: Path) -> None:
    """A comment stands above each group of directives that are set together."""
    above = False
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            above = True
        elif not line or line.startswith("["):
            above = False
        else:
            obvious = line.split("=")[0] in ("Description", "Documentation", "WantedBy")
            assert above or obvious, f"{path.name}: {line} is not explained"


def test_memory_limits_come_from_the_ceiling() -> None:
    sample = config.load(str(DEPLOY / "serve.yaml"))
    assert sample.memory_limit is not None
    service = directives(DEPLOY / "edgeinfer.service")
    assert parse_size(service["MemoryHigh"]) == sample.memory_limit + HIGH_MARGIN
    assert parse_size(service["MemoryMax"]) == sample.memory_limit + MAX_MARGIN
    said = unit_limits(sample.memory_limit)
    command = [sys.executable, "-m", "edgeinfer.cli", "serve", "--config", str(DEPLOY / "serve.yaml"), "--unit-limits"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout == said
    assert f"MemoryMax={parse_size(service['MemoryMax'])}" in said


def test_the_sample_configuration_holds_for_the_service_as_it_is_installed() -> None:
    text = (DEPLOY / "serve.yaml").read_text()
    sample = config.parse(yaml.safe_load(text))
    listen = directives(DEPLOY / "edgeinfer.socket")["ListenStream"]
    assert sample.listen[0].path == listen == "/run/edgeinfer/http.sock"
    # what is commented out is right as well
    uncommented = re.sub(r"^#(?=[a-z_]+:|  )", "", text, flags=re.MULTILINE)
    every = config.parse(yaml.safe_load(uncommented))
    assert every.token_file and set(every.model_settings) >= {"mobilenet", "minilm"}


@analyze
def test_units_are_valid(tmp_path: Path) -> None:
    for path in UNITS:
        (tmp_path / path.name).write_text(path.read_text().replace("/usr/bin/edgeinfer", "/bin/true"))
    for path in UNITS:
        done = subprocess.run(
            ["systemd-analyze", "verify", "--recursive-errors=no", tmp_path / path.name], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 and path.name not in done.stderr, done.stderr


@analyze
def test_the_sandbox_scores_two_or_better() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", str(DEPLOY / "edgeinfer.service")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for edgeinfer.service: ([0-9.]+)", done.stdout)
    assert found and float(found[1]) <= 2.0 and done.returncode == 0, done.stdout[-2000:]


def test_the_dynamic_user_has_a_name_of_its_own() -> None:
    """A dynamic user brings a group of its name; one that is there already is an error at start (seen in a booted machine)."""
    service = directives(DEPLOY / "edgeinfer.service")
    groups = re.findall(r"^g (\S+)", (DEPLOY / "edgeinfer.sysusers").read_text(), re.MULTILINE)
    assert service["DynamicUser"] == "yes" and groups == ["edgeinfer"]
    assert service.get("User", "edgeinfer") not in groups  # without User= it is the unit's name
    assert directives(DEPLOY / "edgeinfer.socket")["SocketGroup"] in groups
