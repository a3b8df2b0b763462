"""Every exception of edgeinfer, one tree. Each class carries the exit code of the command line and its HTTP status.

A message names the thing, what was expected, what was found and, where there is something to do, what to do.
"""

from __future__ import annotations


class EdgeInferError(Exception):
    """Base of all errors that edgeinfer raises on purpose."""

    exit_code = 1
    http_status = 500


class UsageError(EdgeInferError):
    """A command, option or argument that does not make sense."""

    exit_code = 2
    http_status = 400


class ModelFormatError(EdgeInferError):
    """A file that is not ONNX, or ONNX that contradicts itself."""

    exit_code = 3
    http_status = 400


class UnsupportedModelError(ModelFormatError):
    """Valid ONNX that uses operators or features edgeinfer does not have; the message lists all of them."""

    exit_code = 4


class ContainerError(EdgeInferError):
    """An ``.edge``, ensemble or caches file that is truncated, damaged, of an unknown version, or made for another container."""

    exit_code = 5
    http_status = 400


class InputError(EdgeInferError):
    """Inputs of a run with wrong names, shapes, dtypes or values."""

    exit_code = 6
    http_status = 400


class PlanError(EdgeInferError):
    """No plan fits the ceiling (or another limit).

    ``smallest_ceiling`` is the least memory limit in bytes that would do, or ``None`` where memory is not the reason.
    """

    exit_code = 7
    http_status = 503

    def __init__(self, message: str, smallest_ceiling: int | None = None) -> None:
        super().__init__(message)
        self.smallest_ceiling = smallest_ceiling


class CeilingExceeded(EdgeInferError):
    """Resident memory passed the ceiling while a request ran; the request failed, the process lives."""

    exit_code = 8
    http_status = 503


class KernelError(EdgeInferError):
    """A kernel variant that this build or this CPU does not have, or a step that a kernel refused."""

    exit_code = 9


class DependencyError(EdgeInferError):
    """An optional package is missing; the message names the extra that brings it."""

    exit_code = 10
