"""Fitting of thresholds: exact against brute force, bounds that hold, orders, aims, the command."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import small_classifiers as task

import edgeinfer as ei
from edgeinfer.cli import main
from edgeinfer.tune import ensemble as tune
from edgeinfer.tune.ensemble import Ladder, Recording


def recording(rows: int, seed: int = 0, members: int = 3, strength: tuple[float, ...] = (1.0, 1.5, 2.5)) -> Recording:
    """Answers of made-up members: right ones get ``strength`` on top of noise."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 5, rows)
    hard = generator.standard_normal((1, rows, 5))  # what all members find hard
    logits = hard + generator.standard_normal((members, rows, 5))
    logits[:, np.arange(rows), labels] += np.array(strength[:members])[:, None]
    powers = np.exp(2 * logits)
    seconds = np.repeat(1e-3 * np.arange(1, members + 1)[:, None], rows, axis=1)
    return Recording((powers / powers.sum(axis=2, keepdims=True)).astype(np.float32), seconds, labels)


def test_each_threshold_is_the_best_one_for_the_others() -> None:
    ladder = Ladder(recording(60))

    def value(thresholds: tuple[float, ...], weight: float) -> float:
        used = ladder.used(thresholds)
        loss = ladder.losses()[used - 1, np.arange(len(used))]
        return float((ladder.cost[used - 1] / ladder.cost[-1]).mean() + weight * loss.mean())

    for weight in (0.3, 1.0, 5.0):
        found = ladder.fit(weight, (1.0, 1.0))
        for k, grid in itertools.product(range(2), np.linspace(0, 1, 301)):
            other = tuple(float(grid) if j == k else t for j, t in enumerate(found))
            assert value(found, weight) <= value(other, weight) + 1e-9


def test_outcomes_are_counted_right() -> None:
    made = recording(200)
    ladder = Ladder(made)
    outcome = ladder.outcome((0.5, 0.3))
    full = made.scores.mean(axis=0).argmax(axis=1)
    for row in range(200):
        for k in (1, 2, 3):
            mean = np.sort(made.scores[:k, row].mean(axis=0))
            if k == 3 or mean[-1] - mean[-2] > (0.5, 0.3)[k - 1]:
                break
        assert outcome.used[row] == k
    answers = np.array([made.scores[:k, r].mean(axis=0).argmax() for r, k in enumerate(outcome.used)])
    assert outcome.wrong == (answers != full).sum() and outcome.disagreement == outcome.wrong / 200
    assert outcome.error == (answers != made.labels).mean()
    assert outcome.milliseconds == pytest.approx(np.array([1, 3, 6])[outcome.used - 1].mean())


def test_the_promised_disagreement_is_kept() -> None:
    """200 fits to fresh rows; the truth is measured on 20,000 others. At most 5 % of the promises may break, and three standard errors."""
    truth, broken, saved = Ladder(recording(20000, seed=999)), 0, []
    for seed in range(200):
        fitted = tune.fit(recording(600, seed=seed), objective="disagreement", max_disagreement=0.03, keep_order=True, seed=seed)
        outcome = truth.outcome(fitted.chosen[0].thresholds)
        broken += outcome.disagreement > 0.03
        saved.append(outcome.milliseconds / 6.0)
    assert broken <= 10 + 3 * np.sqrt(200 * 0.05 * 0.95)
    assert np.mean(saved) < 0.95


def test_members_are_ordered_by_cost_and_accuracy() -> None:
    made = recording(600, members=3)
    mixed = made.ordered((2, 0, 1))
    fitted = tune.fit(mixed, objective="paper")
    assert [fitted.seconds[0], fitted.order[0]] == [pytest.approx(1e-3), 1]
    assert tune.fit(mixed, objective="paper", keep_order=True).order == (0, 1, 2)
    many = recording(200, members=6, strength=(1.0, 2.0, 1.5, 1.0, 1.0, 1.0))
    alike = Recording(many.scores, np.full((6, 200), 1e-3), many.labels)
    assert tune.orders(alike)[0][:2] == (1, 2) and len(tune.orders(alike)) == 1


def test_aims_are_met_on_the_rows_they_are_measured_on() -> None:
    made = recording(800)
    for limit in (2e-3, 4e-3):
        fitted = tune.fit(made, objective="latency", max_latency=limit, keep_order=True)
        assert Ladder(made).outcome(fitted.chosen[0].thresholds).milliseconds <= 1e3 * limit
    tight = tune.fit(made, objective="latency", max_p99=3.5e-3, keep_order=True)
    assert Ladder(made).outcome(tight.chosen[0].thresholds).p99 <= 3.5
    drop = tune.fit(made, objective="drop", max_drop=0.5, keep_order=True)
    outcome = Ladder(made).outcome(drop.chosen[0].thresholds)
    assert outcome.drop is not None and 100 * outcome.drop <= 0.5 and outcome.milliseconds < 6.0
    patient, hasty = (tune.fit(made, objective="paper", alpha=a, keep_order=True).chosen[1].milliseconds for a in (0.02, 0.9))
    assert hasty < patient


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "speed"}, "paper, disagreement, drop, latency"),
        ({"objective": "drop"}, "needs its bound"),
        ({"objective": "latency", "max_latency": 1e-9}, "first member alone"),
        ({"alpha": 0.0}, "alpha"),
        ({"confidence": 1.0}, "confidence"),
    ],
)
def test_bad_aims(options: dict, message: str) -> None:
    with pytest.raises(ei.UsageError, match=message):
        tune.fit(recording(100), **options)


def test_bad_recordings() -> None:
    made = recording(100)
    with pytest.raises(ei.UsageError, match="labels"):
        tune.fit(Recording(made.scores, made.seconds, None), objective="paper")
    with pytest.raises(ei.UsageError, match="at least 2 members and 20 rows, found 3 and 5"):
        tune.fit(made.part(np.arange(5)))
    scores = made.scores.copy()
    scores[0, 0, 0] = np.nan
    with pytest.raises(ei.UsageError, match="not finite"):
        tune.fit(Recording(scores, made.seconds, made.labels))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = [str(p) for p in task.containers(tmp_path, (8, 24))]
    x, labels = task.rows(300, 11)
    np.savez(tmp_path / "held.npz", image=x, labels=labels)
    out, page = tmp_path / "e.yaml", tmp_path / "e.html"
    base = ["tune", "ensemble", *members, "--data", str(tmp_path / "held.npz"), "-o", str(out)]
    assert main([*base, "--report", str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["objective"] == "paper" and found["chosen"]["accuracy"] > 0.5
    assert len(found["curve"][0]["shares"]) == 2 and found["curve"][-1]["members"] == 2
    text = page.read_text()
    assert "<svg" in text and "http" not in text.replace("http-equiv", "") and "m0.edge" in text
    with ei.Ensemble.load(out) as ensemble:
        answer = ensemble.run(x)
    assert (answer.scores.argmax(axis=1) == labels).mean() == pytest.approx(found["chosen"]["accuracy"], abs=0.08)
    assert main([*base, "--max-disagreement", "0.02"]) == 0
    assert "disagreement" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arrays", "message", "code"),
    [
        ({"image": np.zeros((0, 2, 6, 6), np.float32)}, "expected samples, found none", 6),
        ({"photo": np.zeros((9, 2, 6, 6), np.float32)}, "expected arrays 'image', found 'photo'", 6),
        ({"image": np.zeros((9, 2, 6, 6), np.float32), "labels": np.zeros(8)}, "same number of samples", 6),
        ({"image": np.full((30, 2, 6, 6), np.nan, np.float32)}, "input 'image': expected finite values", 6),
        ({"image": np.zeros((30, 2, 6, 6), np.float32), "labels": np.full(30, 999)}, "labels: expected classes from 0 to", 6),
        ({"image": np.zeros((30, 2, 6, 6), np.float32), "labels": np.full(30, -1)}, "found -1 to -1", 6),
        ({"image": np.zeros((9, 2, 6, 6), np.float32)}, "at least 2 members and 20 rows", 2),
    ],
)
def test_bad_rows_leave_nothing_behind(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    members = [str(p) for p in task.containers(tmp_path, (4, 8))]
    np.savez(tmp_path / "held.npz", **arrays)  # type: ignore[arg-type]
    out = tmp_path / "e.yaml"
    assert main(["tune", "ensemble", *members, "--data", str(tmp_path / "held.npz"), "-o", str(out)]) == code
    assert message in capsys.readouterr().err and not out.exists()
