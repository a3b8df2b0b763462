"""One batch size per layer: segments, and the dynamic program that chooses them. Pure.

Convolutions use a weight often within one image and take megabytes of activations per image; fully connected layers use it once per image
and take kilobytes. So early layers run on few images at a time and leave their results in a *boundary buffer*; when it is full, the layers
behind it fire once for all of them ("accumulate and fire"; Vooturi et al. 2017, and "Variable Batch Size Across Layers", IBM Research
2020). Batch sizes therefore never fall from one segment to the next, and each divides the next. The network and its results stay the same
to the bit.

The memory at any time: what is alive in the running block at its own batch, and every boundary buffer at the batch of the segment behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..pareto import Costs, Option, Point, sweep


class Segment(NamedTuple):
    """Consecutive actions ``first .. end - 1`` that run on ``batch`` images at a time."""

    first: int
    end: int
    batch: int


@dataclass(frozen=True)
class Block:
    """Consecutive actions between two places where the batch may change.

    Attributes:
        first, end: actions ``first .. end - 1``.
        passing: bytes per image that are alive across its end; 0 for the last block.
        seconds: batch -> expected seconds of one run of the block.
        alive: batch -> most bytes alive at once while it runs, what passes on included.
    """

    first: int
    end: int
    passing: int
    seconds: Mapping[int, float]
    alive: Mapping[int, int]


def candidates(batch: int, most: int = 1 << 20) -> list[int]:
    """Batch sizes to consider for ``batch`` images: powers of two, and ``batch`` halved as long as it is even; rising, up to ``most``."""
    sizes = {1}
    while 2 * max(sizes) <= batch:
        sizes.add(2 * max(sizes))
    half = batch
    sizes.add(half)
    while half % 2 == 0:
        half //= 2
        sizes.add(half)
    return sorted(size for size in sizes if size <= most)


#: seconds that one run of a segment costs beside its layers: slots to bind, a call into the kernels (measured 10 to 30 us)
RUN_SECONDS = 20e-6


def best(
    blocks: Sequence[Block], batches: Sequence[int], room: int, latency: float | None = None, run_seconds: float = RUN_SECONDS
) -> list[Segment] | None:
    """The segments with the least time per image whose memory stays within ``room`` bytes; ``None`` where nothing does.

    Args:
        blocks: in order, all of them with the same batch sizes.
        batches: sizes to choose from.
        latency: most seconds of one round (the time from the first image's entry to the answers of the last batch).

    Backward over the blocks; the state is (batch of the block, batch of the last block), the costs are (bytes of boundary buffers from here
    on, seconds per image). Fronts are kept per last batch because the latency is their product with the time.
    """
    if not blocks:
        return []
    stages = [_stage(block, index == len(blocks) - 1, batches, room, run_seconds) for index, block in enumerate(blocks)]
    reached = sweep(list(reversed(stages)), start=None, zero=(0, 0.0))
    found: tuple[float, float, Point] | None = None
    for state, points in reached.items():
        last = _last_batch(state)
        for point in points:
            seconds = point.costs[1]
            if latency is not None and last * seconds > latency:
                continue
            key = (seconds, float(point.costs[0]))
            if found is None or key < found[:2]:
                found = (*key, point)
    if found is None:
        return None
    return _merge(blocks, tuple(reversed(found[2].choices)))


def _last_batch(state: Any) -> int:
    return int(state[1])


def _stage(block: Block, is_last: bool, batches: Sequence[int], room: int, run_seconds: float) -> Any:
    def options(state: Any, costs: Costs) -> list[Option]:
        found = []
        buffers = costs[0]
        for batch in batches:
            if is_last:
                if block.alive[batch] <= room:
                    found.append(Option(batch, (0, (block.seconds[batch] + run_seconds) / batch), (batch, batch)))
                continue
            following, last = state
            if batch > following or following % batch:
                continue
            grows = batch < following
            more = following * block.passing if grows else 0
            own = block.alive[batch] - (batch * block.passing if grows else 0)
            if own + buffers + more <= room:
                seconds = block.seconds[batch] + (run_seconds if grows else 0.0)
                found.append(Option(batch, (more, seconds / batch), (batch, last)))
        return found

    return options


def _merge(blocks: Sequence[Block], batches: Sequence[int]) -> list[Segment]:
    segments: list[Segment] = []
    for block, batch in zip(blocks, batches, strict=True):
        if segments and segments[-1].batch == batch:
            segments[-1] = Segment(segments[-1].first, block.end, batch)
        else:
            segments.append(Segment(block.first, block.end, batch))
    return segments


def capped(segments: Sequence[Segment], most: int) -> list[Segment]:
    """The segments with no batch above ``most``, for a round of ``most`` images: sizes that do not divide it shrink to one that does."""
    batches = []
    following = most
    for segment in reversed(segments):
        batch = min(segment.batch, following)
        while following % batch:
            batch -= 1
        batches.append(batch)
        following = batch
    found: list[Segment] = []
    for segment, batch in zip(segments, reversed(batches), strict=True):
        if found and found[-1].batch == batch:
            found[-1] = Segment(found[-1].first, segment.end, batch)
        else:
            found.append(Segment(segment.first, segment.end, batch))
    return found
