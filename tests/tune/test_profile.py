"""Measuring a device: the fit finds rates that are there, the file comes back as it went, the planner uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeinfer.cli import main
from edgeinfer.errors import UsageError
from edgeinfer.runtime import profile as rates
from edgeinfer.tune import profile


def test_fit_finds_the_rates_that_made_the_times() -> None:
    truth = {term: 1e9 * (1 + 0.3 * n) for n, term in enumerate(rates.TERMS)}
    work = [rates.amounts(layer.step(), layer, layer.algorithm) for layer in profile.layers()] + [{"bytes": 1e5}, {"bytes": 1e6}]
    times = [sum(amount / truth[term] for term, amount in w.items()) for w in work]
    found = profile.fit(work, times, rates.BUILT_IN["avx2"])
    for term in {t for w in work for t in w}:
        assert found[term] == pytest.approx(truth[term], rel=1e-3), term


def test_term_that_nothing_determines_keeps_its_proportion() -> None:
    base = rates.BUILT_IN["avx2"]
    found = profile.fit([{"direct": 2e6}, {"bytes": 3e6}], [2e6 / base.rates["direct"] * 4, 3e6 / base.rates["bytes"] * 4], base)
    assert found["depthwise"] == pytest.approx(base.rates["depthwise"] / 4)


def test_file_comes_back_as_it_went(tmp_path: Path) -> None:
    path = tmp_path / "device.json"
    path.write_text(rates.dumps(rates.BUILT_IN))
    assert {name: dict(p.rates) for name, p in rates.read(path).items()} == {name: dict(p.rates) for name, p in rates.BUILT_IN.items()}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nothing", "expected JSON"),
        ("[]", "expected version 1"),
        ('{"version": 2, "profiles": {}}', "expected version 1"),
        ('{"version": 1, "profiles": {"sparc": {}}}', "'sparc'"),
        ('{"version": 1, "profiles": {"avx2": {"rates": {"direct": 1}}}}', "expected rates of"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "device.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        rates.read(path)


@pytest.mark.parametrize("rate", [0, -1, "fast", None, True])
def test_rates_that_are_refused(tmp_path: Path, rate: object) -> None:
    document = json.loads(rates.dumps({"avx2": rates.BUILT_IN["avx2"]}))
    document["profiles"]["avx2"]["rates"]["bytes"] = rate
    (tmp_path / "device.json").write_text(json.dumps(document))
    with pytest.raises(UsageError, match="rate of bytes: expected a number above 0"):
        rates.read(tmp_path / "device.json")


def test_command_writes_what_the_planner_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    few = [profile.Layer(7, 7, 32, 32, 3), profile.Layer(9, 9, 3, 16, 3), profile.Layer(1, 8, 64, 64)]
    monkeypatch.setattr(profile, "layers", lambda: few)
    path = tmp_path / "device.json"
    assert main(["tune", "profile", "--seconds", "1ms", "-o", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document["rates"]) == set(rates.TERMS) and all(rate > 0 for rate in document["rates"].values())
    monkeypatch.setenv("EDGEINFER_PROFILE", str(path))
    assert dict(rates.profile_of(document["kernels"]).rates) == document["rates"]
    assert main(["ops", "--kernels"]) == 0
    assert f"{document['rates']['direct']:.3g}" in capsys.readouterr().out
    monkeypatch.setenv("EDGEINFER_PROFILE", str(tmp_path / "absent.json"))
    assert main(["ops"]) == 2
    assert "absent.json: No such file" in capsys.readouterr().err


def test_tune_says_what_it_can_tune(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune"]) == 2
    assert "required: {profile" in capsys.readouterr().err
    assert main(["tune", "profile", "--help"]) == 0
    assert "--seconds" in capsys.readouterr().out
