"""``kill -9`` at random moments while a model is replaced: the service comes back with the old or the new one, never a broken one."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from serving import Running
from small import feed

import edgeinfer as ei

KILLS = 50


@pytest.mark.slow
def test_kills_while_a_model_is_replaced(start: Callable[..., Running], containers: list[Path]) -> None:
    """Every other replacement is a rename, the others a copy in place, which a kill (like a power cut) leaves half written."""
    answers = []
    for path in containers:
        with ei.InferenceSession(path, threads=1) as session:
            answers.append(session.run(None, feed(2))[0])
    contents = [path.read_bytes() for path in containers]
    service = start(state=True, poll_interval=0.05)
    place, chance = service.models / "small.edge", random.Random(20)
    state = service.folder / "state"
    served = [0, 0]
    for kill in range(KILLS):
        new = contents[chance.randrange(2)]
        if kill % 2:
            (service.models / "beside").write_bytes(new)
            os.replace(service.models / "beside", place)
            time.sleep(chance.random() * 0.3)
            service.process.send_signal(signal.SIGKILL)
        else:
            with open(place, "wb") as file:
                file.write(new[: chance.randrange(len(new))])
                file.flush()
                time.sleep(chance.random() * 0.3)
                service.process.send_signal(signal.SIGKILL)
        service.process.wait()
        if kill % 5 == 4:  # at once again, while it starts
            service.start(wait=False)
            time.sleep(chance.random() * 0.8)
            service.stop(signal.SIGKILL)
        service.start()
        found = service.infer(feed(2))["scores"]
        matches = [np.array_equal(found, each) for each in answers]
        assert any(matches), f"kill {kill}: neither the old nor the new model answers"
        served[matches.index(True)] += 1
        assert len(list(state.glob("small@*.edge"))) <= 2, sorted(state.iterdir())
    assert min(served) > 0
    assert service.stop() == 0
