"""Which tensor is coded how: a default and rules, first match wins. The only module that reads and writes recipes as YAML.

::

    default: {quantizer: kmeans, bits: 4}
    rules:
      - {depthwise: true, quantizer: kmeans, bits: 8}
      - {max_weights: 4095, quantizer: none, dtype: float16}
      - {name: "layer4.*", op: Conv, quantizer: sign, bits: 5, coder: rans}

A choice names a quantizer, its options (``bits``, ``dtype`` ...) and, if wanted, a coder; without one each tensor gets the smallest that
runs fused. A rule has conditions beside its choice: ``name`` (shell pattern on the tensor's name), ``op``, ``depthwise``,
``min_weights``, ``max_weights``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .allotment import allot

DEFAULT_QUANTIZER = "kmeans"
#: bits of a symbol where nobody says otherwise: at most a point of accuracy is lost on each of the shared classifiers
DEFAULT_BITS = 5
#: tensors with fewer weights stay fp16: their tables would outweigh what they save, and they are often the sensitive ones
SMALL = 4096
#: a depthwise filter has a handful of weights per channel, and its error meets no other to cancel with
DEPTHWISE_BITS = 8


@dataclass(frozen=True)
class Tensor:
    """What rules may ask of a tensor."""

    name: str
    op: str
    weights: int
    depthwise: bool = False


@dataclass(frozen=True)
class Choice:
    """A quantizer with its options, and a coder or ``None`` for the smallest that runs fused."""

    quantizer: str
    options: Mapping[str, Any] = field(default_factory=dict)
    coder: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The choice as in a recipe file."""
        return {"quantizer": self.quantizer, **self.options, **({} if self.coder is None else {"coder": self.coder})}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str) -> Choice:
        """Inverse of :meth:`to_json`. Raises UsageError naming ``where``."""
        options = dict(value)
        quantizer, coder = options.pop("quantizer", None), options.pop("coder", None)
        if not isinstance(quantizer, str):
            raise UsageError(f"{where}: expected the name of a quantizer, found {quantizer!r}")
        if coder is not None and not isinstance(coder, str):
            raise UsageError(f"{where}: expected the name of a coder, found {coder!r}")
        return cls(quantizer, options, coder)


_CONDITIONS: dict[str, type] = {"name": str, "op": str, "depthwise": bool, "min_weights": int, "max_weights": int}


@dataclass(frozen=True)
class Rule:
    """A choice for the tensors that meet all conditions; ``None`` is no condition."""

    choice: Choice
    name: str | None = None
    op: str | None = None
    depthwise: bool | None = None
    min_weights: int | None = None
    max_weights: int | None = None

    def matches(self, tensor: Tensor) -> bool:
        """True if the tensor meets all conditions."""
        return (
            (self.name is None or (tensor.name == self.name or fnmatchcase(tensor.name, self.name)))
            and (self.op is None or self.op == tensor.op)
            and (self.depthwise is None or self.depthwise == tensor.depthwise)
            and (self.min_weights is None or tensor.weights >= self.min_weights)
            and (self.max_weights is None or tensor.weights <= self.max_weights)
        )


@dataclass(frozen=True)
class Recipe:
    """The choice for every tensor: that of the first rule that matches, else the default."""

    default: Choice
    rules: tuple[Rule, ...] = ()

    def choose(self, tensor: Tensor) -> Choice:
        """The choice for a tensor."""
        return next((rule.choice for rule in self.rules if rule.matches(tensor)), self.default)

    @classmethod
    def simple(cls, quantizer: str | None = None, coder: str | None = None, bits: int | None = None) -> Recipe:
        """One quantizer, coder and number of bits for all large weights.

        Finer than asked for stay: tensors of less than ``SMALL`` weights (fp16) and depthwise filters (8-bit ``kmeans``). With quantizer
        ``none`` nothing is rounded and there is no exception.
        """
        if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 8):
            raise UsageError(f"expected 1 to 8 bits, found {bits!r}")
        quantizer = quantizer or DEFAULT_QUANTIZER
        if quantizer == "none":
            if bits is not None:
                raise UsageError("quantizer 'none' keeps weights as they are; leave out the number of bits")
            return cls(Choice("none", {}, coder))
        bits = DEFAULT_BITS if bits is None else bits
        fine = (
            Rule(Choice("none", {"dtype": "float16"}), max_weights=SMALL - 1),
            Rule(Choice("kmeans", {"bits": max(bits, DEPTHWISE_BITS)}), depthwise=True),
        )
        return cls(Choice(quantizer, {"bits": bits}, coder), fine)

    def refine(self, tensors: Sequence[Tensor]) -> Recipe:
        """The recipe with more bits for the smaller of the tensors that its default is for (:mod:`.allotment`), each by a rule of its
        own."""
        bits = int(self.default.options["bits"])
        found = allot({t.name: t.weights for t in tensors if self.choose(t) is self.default}, bits)
        own = (Rule(replace(self.default, options={**self.default.options, "bits": b}), name=name) for name, b in found.items() if b > bits)
        return replace(self, rules=(*self.rules, *own))

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON values: what containers and recipe files hold."""
        rules = [{**{k: v for k in _CONDITIONS if (v := getattr(rule, k)) is not None}, **rule.choice.to_json()} for rule in self.rules]
        return {"default": self.default.to_json(), "rules": rules}

    @classmethod
    def from_json(cls, value: Any, where: str = "recipe") -> Recipe:
        """Inverse of :meth:`to_json`. Raises UsageError with ``where`` and what is wrong."""
        if not isinstance(value, Mapping) or not set(value) <= {"default", "rules"} or not isinstance(value.get("default"), Mapping):
            raise UsageError(f"{where}: expected 'default' with a quantizer, and 'rules'")
        rules = value.get("rules") or []
        if not isinstance(rules, Sequence) or isinstance(rules, str):
            raise UsageError(f"{where}: expected a list of rules, found {rules!r}")
        found = []
        for number, rule in enumerate(rules, 1):
            here = f"{where}, rule {number}"
            if not isinstance(rule, Mapping):
                raise UsageError(f"{here}: expected conditions and a choice, found {rule!r}")
            conditions = {k: rule[k] for k in _CONDITIONS if rule.get(k) is not None}
            for key, condition in conditions.items():
                if type(condition) is not _CONDITIONS[key]:
                    raise UsageError(f"{here}: {key} should be of type {_CONDITIONS[key].__name__}, found {condition!r}")
            found.append(Rule(Choice.from_json({k: v for k, v in rule.items() if k not in _CONDITIONS}, here), **conditions))
        return cls(Choice.from_json(value["default"], f"{where}, default"), tuple(found))

    def save(self, path: str | Path) -> None:
        """Write the recipe as YAML."""
        import yaml

        Path(path).write_text(yaml.safe_dump(self.to_json(), sort_keys=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe file. Raises UsageError where it is none."""
        import yaml

        try:
            value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: expected YAML ({error})") from None
        return cls.from_json(value, str(path))
