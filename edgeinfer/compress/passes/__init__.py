"""The rewriting of a network before it is stored: one file per idea, each ``run(draft)`` changes the draft in place.

Order: what the graph computes is settled first (constants, a free batch, shapes), then the layout, then what one native step can do
together. Dead nodes are removed in between, since they would count as readers.
"""

from __future__ import annotations

from ..draft import Draft
from . import activation, affine, batch, constants, dead_code, gelu, gemm, layer_norm, layout, residual, scale, shape_arithmetic, swish

ORDER = (
    constants,
    dead_code,
    batch,
    shape_arithmetic,
    dead_code,
    gemm,
    gelu,
    dead_code,
    swish,
    dead_code,
    layer_norm,
    dead_code,
    layout,
    constants,
    dead_code,
    affine,
    dead_code,
    scale,
    residual,
    activation,
    dead_code,
)


def run(draft: Draft) -> None:
    """All passes, in order."""
    for one in ORDER:
        one.run(draft)
