"""Weights as floats: float32, float16 or bfloat16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import UsageError
from .base import QUANTIZERS, Quantized, Quantizer, round_bfloat


@QUANTIZERS.register("none")
@dataclass
class NoQuantizer(Quantizer):
    """No symbols.

    Args:
        dtype: ``float32`` (exact), ``float16`` or ``bfloat16`` (rounded to nearest even).
    """

    name: ClassVar[str] = "none"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "float16", "bfloat16"):
            raise UsageError(f"dtype of quantizer 'none': expected float32, float16 or bfloat16, found {self.dtype!r}")

    def quantize(self, weights: np.ndarray) -> Quantized:
        if self.dtype == "float32":
            return Quantized(values=weights)
        if self.dtype == "bfloat16":
            if not np.isfinite(weights).all():
                raise UsageError("weights that are infinite or not a number cannot be rounded to bfloat16; use float32")
            rounded = (round_bfloat(weights).view(np.uint32) >> 16).astype(np.uint16)
            return Quantized(values=rounded)
        if not np.abs(weights).max() < 65520:  # the largest number that rounds to a finite float16
            raise UsageError("weights beyond 65504 do not fit float16; use bfloat16 or float32")
        return Quantized(values=weights.astype(np.float16))
