"""Where each weight tensor lives: compressed in memory, decoded in memory, or streamed from storage. Pure.

The compressed form of everything is the middle way. Where the ceiling leaves room beyond it, tensors whose decoding costs most per byte
are kept decoded; where it does not leave that much, rows are streamed: read again in every run, by a thread that reads ahead while kernels
work. Rows are streamed by whole row blocks, which are contiguous in a container, so a tensor may be resident in part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: read-ahead memory: enough for several reads under way; more of it would not be faster, and what it takes has to be streamed as well
RING_BYTES = 4 << 20
#: parts that the ring is divided into at least, so that reading and multiplying overlap
RING_PARTS = 4


@dataclass(frozen=True)
class Piece:
    """Row blocks ``first .. first + blocks - 1`` of one group of a tensor; ``streamed``: read in every run."""

    tensor: str
    group: int
    first: int
    blocks: int
    streamed: bool


@dataclass(frozen=True)
class Residency:
    """Residency of the tensors of a container; what is not named is compressed in memory.

    Attributes:
        decoded: tensors kept as floats.
        pieces: tensors that are in pieces, each with its pieces in order of rows.
    """

    decoded: frozenset[str] = frozenset()
    pieces: tuple[tuple[str, tuple[Piece, ...]], ...] = ()

    def pieces_of(self, tensor: str) -> tuple[Piece, ...]:
        for name, pieces in self.pieces:
            if name == tensor:
                return pieces
        return ()


#: everything compressed in memory
COMPRESSED = Residency()


@dataclass(frozen=True)
class Unit:
    """One row block of a tensor that may be streamed.

    Attributes:
        nbytes: of all its planes.
        at: seconds of computing in a round before it is needed, if it is needed once per round.
        runs: how often per round of the batch it is needed.
    """

    tensor: str
    group: int
    block: int
    nbytes: int
    at: float
    runs: int


@dataclass(frozen=True)
class Streaming:
    """What :func:`stream` chose.

    Attributes:
        residency: with its pieces.
        ring_bytes: memory of the read-ahead; ``read_bytes``: bytes read per round.
    """

    residency: Residency
    ring_bytes: int
    read_bytes: int


def padded(nbytes: int) -> int:
    """Bytes that rows take with room behind them for decoders that load whole vectors."""
    return -(-(nbytes + 64) // 64) * 64


def least_ring(units: Iterable[Unit], planes: int = 2) -> int:
    """Bytes of the smallest ring that does: two of the largest unit."""
    return 2 * max((padded(u.nbytes) + 64 * planes for u in units), default=0)


def stream(units: Sequence[Unit], room: int, rate: float) -> Streaming | None:
    """Choose which row blocks are streamed so that the others and the ring fit ``room`` bytes; ``None`` where nothing does.

    Args:
        units: row blocks in the order in which a round needs them.
        rate: bytes per second that storage delivers.

    Blocks that are needed often stay; of those needed equally often first such are streamed as can be read while the steps before them
    compute, then the last ones, whose reading has the whole round to begin.
    """
    least = least_ring(units)
    ring = max(least, min(RING_BYTES, room // 8))
    overhead = 192  # of a piece: alignment and overread, both planes
    total = sum(u.nbytes + overhead for u in units)
    if ring > room:
        return None
    need = total - (room - ring)
    streamed: set[int] = set()
    taken = 0
    for runs in sorted({u.runs for u in units}):
        order = [i for i, u in enumerate(units) if u.runs == runs]
        began = 0
        for i in order:
            unit = units[i]
            if taken < need and began + unit.nbytes <= rate * unit.at + ring // 2:
                streamed.add(i)
                began += unit.nbytes
                taken += unit.nbytes + overhead
        for i in reversed(order):
            if taken >= need:
                break
            if i not in streamed:
                streamed.add(i)
                taken += units[i].nbytes + overhead
        if taken >= need:
            break
    if taken < need:
        return None
    pieces = _merge(units, streamed, ring // RING_PARTS)
    read = sum(units[i].nbytes * units[i].runs for i in streamed)
    return Streaming(Residency(pieces=pieces), ring, read)


def _merge(units: Sequence[Unit], streamed: set[int], most: int) -> tuple[tuple[str, tuple[Piece, ...]], ...]:
    """Neighbouring blocks of one kind become one piece; streamed ones up to ``most`` bytes. Tensors with nothing streamed are left out."""
    found: dict[str, list[Piece]] = {}
    sizes: dict[str, int] = {}
    for i, unit in enumerate(units):
        kind = i in streamed
        pieces = found.setdefault(unit.tensor, [])
        last = pieces[-1] if pieces else None
        joins = last is not None and last.group == unit.group and last.first + last.blocks == unit.block and last.streamed == kind
        if joins and last is not None and (not kind or sizes[unit.tensor] + unit.nbytes <= most):
            pieces[-1] = Piece(unit.tensor, unit.group, last.first, last.blocks + 1, kind)
            sizes[unit.tensor] += unit.nbytes
        else:
            pieces.append(Piece(unit.tensor, unit.group, unit.block, 1, kind))
            sizes[unit.tensor] = unit.nbytes
    return tuple((name, tuple(pieces)) for name, pieces in found.items() if any(p.streamed for p in pieces))


def ring_places(sizes: Sequence[Sequence[int]], ring: int) -> list[tuple[list[int], int]]:
    """Where each fetch of a round lies in the ring.

    Args:
        sizes: bytes of each range of each fetch (a piece has a range per plane), in order.
        ring: bytes of the ring.

    Returns per fetch the offsets of its ranges and how many earlier fetches have to be done with before it may be read.
    """
    places: list[tuple[list[int], int]] = []
    alive: list[tuple[int, int, int]] = []  # (start, end, number) of what was written last there
    at = 0
    for number, ranges in enumerate(sizes):
        size = sum(padded(n) for n in ranges)
        if size > ring:
            raise ValueError(f"a piece of {size} bytes does not fit a ring of {ring}")
        if at + size > ring:
            at = 0
        start, end = at, at + size
        over = [entry for entry in alive if entry[0] < end and entry[1] > start]
        after = max((entry[2] + 1 for entry in over), default=0)
        alive = [entry for entry in alive if entry[2] >= after]
        alive.append((start, end, number))
        offsets = []
        for n in ranges:
            offsets.append(at)
            at += padded(n)
        places.append((offsets, after))
    return places


def decode(candidates: Iterable[tuple[str, int, float]], room: int) -> frozenset[str]:
    """Tensors to keep decoded.

    Args:
        candidates: (tensor, bytes more than compressed, seconds saved per round) each.
        room: bytes to spend.

    By seconds per byte, the best first (a knapsack with many small pieces: greedy is within one piece of the best).
    """
    chosen = set()
    for tensor, nbytes, seconds in sorted(candidates, key=lambda c: -c[2] / max(c[1], 1)):
        if seconds > 0 and nbytes <= room:
            chosen.add(tensor)
            room -= nbytes
    return frozenset(chosen)
