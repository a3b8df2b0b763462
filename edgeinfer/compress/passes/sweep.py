"""One walk over a network in order, in which a rewrite may merge a node into the ones already walked over.

A merged node takes over the output name of the node it swallows, so nobody else has to be told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ...graph import Node
from ..draft import Draft


class Sweep:
    """The walked part of a network, and who reads what in all of it."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.built: list[Node | None] = []
        self.readers = Counter(name for node in draft.nodes for name in node.inputs if name)
        self.readers.update(draft.outputs.values())
        self._at: dict[str, int] = {}

    def append(self, node: Node) -> None:
        """Add a node behind all others."""
        self.built.append(node)
        self._at.update((name, len(self.built) - 1) for name in node.outputs if name)

    def index(self, name: str) -> int:
        """Place of the node that computes a tensor, -1 for inputs and constants."""
        return self._at.get(name, -1)

    def producer(self, name: str) -> Node | None:
        """The node that computes a tensor, if one did so far."""
        at = self._at.get(name, -1)
        return None if at < 0 else self.built[at]

    def sole(self, name: str) -> bool:
        """True if exactly one input of one node reads the tensor, and it is no output of the network."""
        return self.readers[name] == 1

    def replace(self, at: int, node: Node) -> None:
        """Put another node in the place of the ``at``-th."""
        self.built[at] = node
        self._at.update((name, at) for name in node.outputs if name)

    def move_last(self, at: int, node: Node) -> None:
        """Remove the ``at``-th node and put ``node`` behind all others."""
        self.built[at] = None
        self.append(node)


def sweep(draft: Draft, rewrite: Callable[[Sweep, Node], bool]) -> None:
    """Walk over ``draft``; ``rewrite`` returns True for a node that it has dealt with, all others are kept."""
    walk = Sweep(draft)
    for node in draft.nodes:
        if not rewrite(walk, node):
            walk.append(node)
    draft.nodes = [node for node in walk.built if node is not None]
