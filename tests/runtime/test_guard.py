"""The guard: what it audits, when it tightens, when it lets go, and its state file. Streams are made up, so the truth is known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import edgeinfer as ei
from edgeinfer.runtime import guard as module
from edgeinfer.runtime.guard import ROOM, Guard, stricter
from edgeinfer.runtime.stop import Draw

PROMISE = 0.01


def made(path: Path | None = None, share: float = 0.05, owner: str = "caches", seed: int = 1) -> Guard:
    return Guard([0.9, 0.9], [0.4, 0.24], [0, 1], PROMISE, share, owner, path, Draw(seed))


class Stream:
    """Rows with a confidence at two caches; a confident answer is wrong with probability ``wrong``, less so the more confident."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def row(self, wrong: float) -> tuple[np.ndarray, np.ndarray]:
        confidence = np.where(self.generator.random(2) < 0.4, self.generator.uniform(0.9, 1.0, 2), self.generator.uniform(0.0, 0.9, 2))
        bad = self.generator.random(2) < wrong * 20 * (1.0 - confidence)
        return confidence.astype(np.float32), bad


def play(guard: Guard, stream: Stream, rows: int, wrong: float) -> tuple[int, int]:
    """(wrong answers given, answers given early)."""
    given = early = 0
    for _ in range(rows):
        confidence, bad = stream.row(wrong)
        (audited,) = guard.draw(1)
        exit_at = next((n for n in (0, 1) if confidence[n] > guard.thresholds[n]), -1)
        guard.note(np.array([-1 if audited else exit_at]))
        if audited:
            guard.audit(confidence, bad)
        elif exit_at >= 0:
            early += 1
            given += int(bad[exit_at])
    return given, early


def test_a_stream_that_keeps_the_promise_is_left_alone() -> None:
    guard = made()
    wrong, early = play(guard, Stream(0), 6000, 0.005)
    assert wrong <= 0.01 * 6000 and early > 0.5 * 6000
    assert 0.04 < guard.audited / guard.rows < 0.12
    assert guard.report()["estimate"] <= PROMISE


def test_a_shift_is_noticed_before_the_promise_is_broken_by_half() -> None:
    """3,000 good rows, then 3,000 of which early answers are wrong ten times as often as promised: over all rows at most 1.5 promises."""
    unguarded = sum(play(made(share=0.0, seed=s), Stream(s), 3000, 0.15)[0] for s in range(5)) / 15000
    assert unguarded > 8 * PROMISE
    for seed in range(5):
        guard, stream = made(seed=seed), Stream(seed)
        good, _ = play(guard, stream, 3000, 0.004)
        shifted, _ = play(guard, stream, 3000, 0.15)
        assert (good + shifted) / 6000 <= 1.5 * PROMISE, (seed, good, shifted)
        assert max(guard.steps) > 0


def test_hopeless_caches_switch_off_and_come_back() -> None:
    guard, stream = made(), Stream(2)
    for _ in range(60):
        confidence, _ = stream.row(0.0)
        guard.audit(confidence, np.array([True, False]))  # whatever the first cache says is wrong
    assert math.isinf(guard.steps[0]) and guard.thresholds[0] > 1 and guard.steps[1] < math.inf
    assert guard.report()["strictness"][0] is None
    for _ in range(ROOM):
        confidence, _ = stream.row(0.0)
        guard.audit(confidence, np.array([False, False]))
    assert guard.thresholds == guard.fitted


def test_a_reason_makes_audits_frequent_for_a_while() -> None:
    guard = made(share=0.01)
    before = guard.draw(2000).mean()
    guard.audit(np.array([0.95, 0.5], np.float32), np.array([True, False]))
    after = guard.draw(module.BURST).mean()
    later = guard.draw(2000).mean()
    assert before < 0.03 and after > 0.3 and later < 0.03


def test_an_odd_share_of_early_answers_is_a_reason() -> None:
    guard = made()
    guard.note(np.full(100, -1))
    guard.note(np.full(100, -1))
    assert guard._burst == module.BURST
    calm, generator = made(), np.random.default_rng(0)
    for _ in range(50):
        calm.note(np.where(generator.random(40) < 0.63, 0, -1))
    assert calm._burst == 0


def test_memory_is_bounded() -> None:
    guard, stream = made(), Stream(3)
    sizes = []
    for _ in range(3 * ROOM):
        guard.audit(*stream.row(0.01))
        sizes.append(guard._confidence.nbytes + guard._bad.nbytes)
    assert len(set(sizes)) == 1 and guard._kept == ROOM


def test_no_audits_no_change() -> None:
    guard = made(share=0.0)
    assert not guard.draw(1000).any()
    play(guard, Stream(4), 500, 0.5)
    assert guard.thresholds == guard.fitted and guard.report()["estimate"] is None


@pytest.mark.parametrize("step", [0.0, 0.5, 2.0])
def test_strictness_is_in_log_odds(step: float) -> None:
    new = stricter(0.8, step)
    assert math.log(new / (1 - new)) == pytest.approx(math.log(4) + step)
    assert stricter(0.8, math.inf) > 1


def test_the_state_survives(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    guard, stream = made(path), Stream(5)
    for _ in range(40):
        guard.audit(*stream.row(0.3))
    guard.save()
    again = made(path)
    assert again.thresholds == guard.thresholds and again.audited == 40 and again.steps == guard.steps
    np.testing.assert_allclose(again._confidence, guard._confidence, atol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_state_is_written_now_and_then(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    guard, stream = made(path), Stream(6)
    for _ in range(module.SAVE_EVERY):
        guard.audit(*stream.row(0.0))
    assert made(path).audited == module.SAVE_EVERY


def test_bad_states_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    made(path).save()
    whole = path.read_text()
    with pytest.raises(ei.ContainerError, match="belongs to other caches"):
        made(path, owner="others")
    for end in range(0, len(whole) - 1, 7):
        path.write_text(whole[:end])
        with pytest.raises(ei.ContainerError, match="not a state of these caches"):
            made(path)
    value = json.loads(whole)
    value["state"]["counts"][0] = 7
    path.write_text(json.dumps(value))
    with pytest.raises(ei.ContainerError, match="expected checksum"):
        made(path)
    with pytest.raises(ei.ContainerError, match="cannot be written"):
        made(tmp_path / "no" / "folder").save()
