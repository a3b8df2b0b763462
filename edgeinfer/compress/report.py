"""What compression did, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """One stored tensor.

    Attributes:
        name, op: the tensor, and the operator that reads it.
        shape: its logical shape.
        quantizer, coder: how it is coded, ``None`` for a constant that is stored as it is.
        weights: number of elements.
        nbytes: stored bytes, tables and tile offsets included.
        max_error: largest difference of any weight to the original.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    quantizer: str | None
    coder: str | None
    weights: int
    nbytes: int
    max_error: float

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight."""
        return 8 * self.nbytes / self.weights if self.weights else 0.0


@dataclass(frozen=True)
class Report:
    """A finished compression.

    Attributes:
        output: the container.
        layers: coded tensors in the order of their use.
        constants: tensors stored as they are.
        notes: the importer's remarks (why a batch is fixed, and the like).
        seconds: wall time.
    """

    output: str
    layers: tuple[Layer, ...]
    constants: tuple[Layer, ...]
    notes: tuple[str, ...]
    seconds: float

    @property
    def weights(self) -> int:
        """Number of stored elements."""
        return sum(layer.weights for layer in self.layers + self.constants)

    @property
    def fp32_bytes(self) -> int:
        """Bytes of all of them as fp32."""
        return 4 * self.weights

    @property
    def nbytes(self) -> int:
        """Stored bytes of all of them."""
        return sum(layer.nbytes for layer in self.layers + self.constants)

    @property
    def ratio(self) -> float:
        """How many times smaller than fp32."""
        return self.fp32_bytes / self.nbytes if self.nbytes else 1.0
