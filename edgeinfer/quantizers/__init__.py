"""Weights -> a symbol per weight, a table of values and a scale per output row."""

from __future__ import annotations

from .base import QUANTIZERS, Quantized, Quantizer
from .kmeans import KMeans
from .none import NoQuantizer
from .sign import Sign
from .uniform import Uniform

__all__ = ["QUANTIZERS", "KMeans", "NoQuantizer", "Quantized", "Quantizer", "Sign", "Uniform"]
