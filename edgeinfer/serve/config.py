"""``serve.yaml``: what the service is told. One YAML mapping; unknown keys are errors that list the known ones."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import UsageError
from ..sizes import parse_seconds, parse_size

DEFAULT_LISTEN = "unix:/run/edgeinfer/http.sock"
#: names of models: file stems that need no quoting in a path
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True)
class Address:
    """Where to listen: a unix socket's ``path``, or ``host`` and ``port``."""

    path: str | None = None
    host: str = ""
    port: int = 0

    @property
    def is_loopback(self) -> bool:
        """True where only this machine can connect."""
        if self.path is not None or self.host == "localhost":
            return True
        number = _ip(self.host)
        return number is not None and (number[:1] == b"\x7f" if len(number) == 4 else number == bytes(15) + b"\1")

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class ModelSettings:
    """Settings of one model. Times in seconds.

    ``max_batch``: rows that requests are gathered into, at most (the plan may admit fewer); ``batch_delay``: how long a lone request waits
    for company; ``symbols``: sizes of free dimensions other than the batch, to plan for; ``timeout``: deadline of requests that bring none;
    ``load``: false leaves it to the repository extension.
    """

    max_batch: int = 8
    batch_delay: float = 0.0
    symbols: Mapping[str, int] = field(default_factory=dict)
    base_only: bool = False
    timeout: float | None = None
    load: bool = True


@dataclass(frozen=True)
class Config:
    """The service's configuration. Sizes in bytes, times in seconds.

    ``models``: folder of ``.edge`` files. ``state``: folder where the service keeps its own copy of each model it runs, so that a file that
    turns out damaged, or is replaced halfway when power goes, leaves the last good one. ``request_memory``: memory for requests
    that wait and replies that leave, part of ``memory_limit``. ``spill``: folder for bodies beyond that; ``spill_limit``: bytes there.
    ``queue_size``: requests that may wait for a model to run. ``connections``: open at once, at most.
    """

    models: str
    listen: tuple[Address, ...] = (Address(path=DEFAULT_LISTEN[5:]),)
    memory_limit: int | None = None
    threads: int | None = None
    token_file: str | None = None
    model_settings: Mapping[str, ModelSettings] = field(default_factory=dict)
    state: str | None = None
    request_memory: int | None = None
    spill: str | None = None
    spill_limit: int = 256 << 20
    queue_size: int = 128
    connections: int = 1000
    receive_timeout: float = 60.0
    send_timeout: float = 60.0
    idle_timeout: float = 120.0
    drain_timeout: float = 20.0
    poll_interval: float = 2.0
    socket_mode: int = 0o660

    def settings(self, model: str) -> ModelSettings:
        return self.model_settings.get(model) or self.model_settings.get("*") or ModelSettings()

    @property
    def request_bytes(self) -> int:
        """Memory for requests and replies: as told, else an eighth of the ceiling, 4 MiB at least; 64 MiB where there is no ceiling."""
        if self.request_memory is not None:
            return self.request_memory
        return max(4 << 20, self.memory_limit // 8) if self.memory_limit is not None else 64 << 20


def parse_address(text: str) -> Address:
    """``unix:/path``, ``127.0.0.1:8000``, ``[::1]:8000``, ``localhost:8000``. Raises UsageError."""
    if not isinstance(text, str):
        raise UsageError(f"listen: expected unix:/path or 127.0.0.1:8000, found {text!r}")
    if text.startswith("unix:"):
        path = text[5:]
        if not path.startswith("/") or len(os.fsencode(path)) > 107:
            raise UsageError(f"listen: a unix socket needs an absolute path of at most 107 bytes, found {path!r}")
        return Address(path=path)
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not colon or not (port.isascii() and port.isdigit()) or not 0 <= int(port) <= 65535:
        raise UsageError(f"listen: expected unix:/path or 127.0.0.1:8000, found {text!r}")
    if host != "localhost" and _ip(host) is None:
        raise UsageError(f"listen: expected an IP address or localhost, found {host!r}")
    return Address(host=host, port=int(port))


def load(path: str) -> Config:
    """The configuration in a file. Raises UsageError that names the file and the key."""
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(1 << 20)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"{path}: cannot be read: {reason}") from None
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    try:
        return parse(document, os.path.dirname(os.path.abspath(path)))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def parse(document: Any, folder: str = ".") -> Config:
    """A configuration from plain values; relative paths start at ``folder``. Raises UsageError."""
    if not isinstance(document, dict):
        raise UsageError(f"expected a mapping of settings, found {type(document).__name__}")
    values = _fields(document, _KEYS, "")
    if "models" not in values:
        raise UsageError("models: expected a folder of .edge files, found nothing")
    for key in ("models", "token_file", "state", "spill"):
        if values.get(key) is not None:
            values[key] = os.path.join(folder, values[key])
    config = Config(**values)
    outside = [str(address) for address in config.listen if not address.is_loopback]
    if outside and config.token_file is None:
        raise UsageError(f"listen: {outside[0]} can be reached from other machines; that needs a token_file")
    return config


def read_token(path: str) -> bytes:
    """The bearer token in a file, without the white space around it. Raises UsageError; the token is never part of a message."""
    try:
        with open(path, "rb") as file:
            token = file.read(4097).strip()
    except OSError as error:
        raise UsageError(f"token_file: {path}: cannot be read: {error.strerror}") from None
    if not 8 <= len(token) <= 4096 or any(byte <= 32 or byte >= 127 for byte in token):
        raise UsageError(f"token_file: {path}: expected one word of 8 to 4096 printable characters")
    return token


def _fields(document: Mapping[Any, Any], known: Mapping[str, Callable[[Any], Any]], where: str) -> dict[str, Any]:
    values = {}
    for key, value in document.items():
        if key not in known:
            raise UsageError(f"{where}unknown key {key!r}; known: {', '.join(known)}")
        if value is None:
            continue
        try:
            values[key] = known[key](value)
        except UsageError as error:
            text = str(error)
            raise UsageError(text if text.startswith(f"{key}:") else f"{where}{key}: {text}") from None
    return values


def _ip(host: str) -> bytes | None:
    """An address as its bytes, first one first; None where it is not one."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_pton(family, host)
        except OSError:
            continue
    return None


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f"expected text, found {value!r}")
    return value


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise UsageError(f"expected a whole number from {least} to {most}, found {value!r}")
        return value

    return check


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"expected true or false, found {value!r}")
    return value


def _addresses(value: Any) -> tuple[Address, ...]:
    return tuple(map(parse_address, value if isinstance(value, list) and value else [value]))


def _symbols(value: Any) -> dict[str, int]:
    if not isinstance(value, dict) or not all(isinstance(k, str) and type(v) is int and 0 < v < 1 << 31 for k, v in value.items()):
        raise UsageError(f"expected sizes by name, as {{S: 128}}, found {value!r}")
    return value


def _mode(value: Any) -> int:
    text = f"{value:o}" if type(value) is int else value  # YAML reads 0660 as octal and "0660" as text
    if not isinstance(text, str) or not re.fullmatch(r"0?[0-7]{1,3}", text):
        raise UsageError(f"expected an octal mode as 0660, found {value!r}")
    return int(text, 8)


def _models(value: Any) -> dict[str, ModelSettings]:
    if not isinstance(value, dict):
        raise UsageError(f"expected settings by model, found {value!r}")
    found = {}
    for name, settings in value.items():
        if not isinstance(name, str) or (name != "*" and not MODEL_NAME.fullmatch(name)) or not isinstance(settings, dict):
            raise UsageError(f"expected settings by model (or '*' for all others), found {name!r}: {settings!r}")
        found[name] = ModelSettings(**_fields(settings, _MODEL_KEYS, f"model_settings.{name}."))
    return found


_MODEL_KEYS: dict[str, Callable[[Any], Any]] = {
    "max_batch": _whole(1, 1 << 16),
    "batch_delay": parse_seconds,
    "symbols": _symbols,
    "base_only": _flag,
    "timeout": parse_seconds,
    "load": _flag,
}
_KEYS: dict[str, Callable[[Any], Any]] = {
    "listen": _addresses,
    "models": _text,
    "memory_limit": parse_size,
    "threads": _whole(1, 256),
    "token_file": _text,
    "model_settings": _models,
    "state": _text,
    "request_memory": parse_size,
    "spill": _text,
    "spill_limit": parse_size,
    "queue_size": _whole(1, 1 << 16),
    "connections": _whole(1, 1 << 16),
    "receive_timeout": parse_seconds,
    "send_timeout": parse_seconds,
    "idle_timeout": parse_seconds,
    "drain_timeout": parse_seconds,
    "poll_interval": parse_seconds,
    "socket_mode": _mode,
}
assert set(_KEYS) == {each.name for each in fields(Config)} and set(_MODEL_KEYS) == {each.name for each in fields(ModelSettings)}
