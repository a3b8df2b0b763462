"""edgeinfer runs neural networks on small devices from their compressed form, under a ceiling on resident memory.

::

    import edgeinfer as ei

    ei.compress("model.onnx", "model.edge", quantizer="kmeans", bits=4)
    session = ei.InferenceSession("model.edge", memory_limit="64MiB")
    outputs = session.run(None, {"data": x})

Heavy parts are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import (
    CeilingExceeded,
    ContainerError,
    DependencyError,
    EdgeInferError,
    InputError,
    KernelError,
    ModelFormatError,
    PlanError,
    UnsupportedModelError,
    UsageError,
)

if TYPE_CHECKING:
    from .compress import compress as compress
    from .runtime.ensemble import Ensemble as Ensemble
    from .runtime.plan import Plan as Plan
    from .runtime.session import InferenceSession as InferenceSession

__version__ = "0.1.0"

_LAZY = {"Ensemble": "runtime.ensemble", "InferenceSession": "runtime.session", "Plan": "runtime.plan"}

__all__ = [
    "CeilingExceeded",
    "ContainerError",
    "DependencyError",
    "EdgeInferError",
    "Ensemble",
    "InferenceSession",
    "InputError",
    "KernelError",
    "ModelFormatError",
    "Plan",
    "PlanError",
    "UnsupportedModelError",
    "UsageError",
    "compress",
    "plan",
]


def __getattr__(name: str) -> Any:
    if name == "compress":
        from .compress import compress

        return compress
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def plan(
    path: str,
    *,
    memory_limit: str | int | None = None,
    latency_limit: str | float | None = None,
    batch: int = 1,
    threads: int | None = None,
    symbols: dict[str, int] | None = None,
    base_only: bool = False,
    residency: str | None = None,
) -> Plan:
    """The plan that a session would follow, without reading the weights; arguments as those of InferenceSession.

    Raises PlanError naming the smallest ceiling that would do.
    """
    from .runtime.ceiling import footprint
    from .runtime.plan import choose_limit, make_plan
    from .runtime.weights import open_store
    from .sizes import parse_seconds

    baseline = footprint()
    limit = choose_limit(memory_limit)
    made, _ = make_plan(
        open_store(path, base_only),
        batch=batch,
        symbols=symbols,
        memory_limit=limit,
        latency_limit=None if latency_limit is None else parse_seconds(latency_limit),
        threads=threads,
        baseline=baseline,
        residency=residency,
    )
    return made
