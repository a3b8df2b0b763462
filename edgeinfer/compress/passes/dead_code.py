"""Nodes that compute what is computed already are merged; nodes and constants that nobody reads are removed."""

from __future__ import annotations

import json

from ...graph import Node
from ..draft import Draft


def run(draft: Draft) -> None:
    """Merge equal nodes, then remove what is not needed for any output."""
    _merge(draft)
    needed = set(draft.outputs.values())
    kept: list[Node] = []
    for node in reversed(draft.nodes):
        if not needed.isdisjoint(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    draft.nodes = kept[::-1]
    draft.weights = {name: array for name, array in draft.weights.items() if name in needed}


def _merge(draft: Draft) -> None:
    same: dict[str, str] = {}  # tensor -> the equal one that stays
    seen: dict[str, Node] = {}
    kept: list[Node] = []
    for node in draft.nodes:
        inputs = tuple(same.get(name, name) for name in node.inputs)
        key = json.dumps([node.op, inputs, node.attrs, [bool(name) for name in node.outputs]], sort_keys=True)
        first = seen.get(key)
        if first is not None:
            same.update(zip(node.outputs, first.outputs, strict=True))
            continue
        node = node if inputs == node.inputs else Node(node.op, node.name, inputs, node.outputs, node.attrs)
        seen[key] = node
        kept.append(node)
    draft.nodes = kept
    for public, tensor in draft.outputs.items():
        draft.outputs[public] = same.get(tensor, tensor)
