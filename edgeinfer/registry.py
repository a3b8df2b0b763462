"""Name -> class. An unknown name is an error that lists the known ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from .errors import EdgeInferError, UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """A named table of classes, filled by a decorator when the module that defines them is imported.

    Args:
        kind: what the names are, for messages ("quantizer", "coder", "operator").
        error: class of the error for an unknown name.
    """

    def __init__(self, kind: str, error: type[EdgeInferError] = UsageError) -> None:
        self.kind = kind
        self._error = error
        self._classes: dict[str, type[T]] = {}

    def register(self, *names: str) -> Callable[[type[T]], type[T]]:
        """Class decorator: enter a class under one or more names."""

        def enter(cls: type[T]) -> type[T]:
            for name in names:
                if name in self._classes:
                    raise ValueError(f"{self.kind} {name!r} is registered twice")
                self._classes[name] = cls
            return cls

        return enter

    def __getitem__(self, name: str) -> type[T]:
        try:
            return self._classes[name]
        except KeyError:
            known = ", ".join(sorted(self._classes))
            raise self._error(f"unknown {self.kind} {name!r}; known: {known}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def __len__(self) -> int:
        return len(self._classes)
