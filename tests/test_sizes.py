"""Sizes and times as users write them."""

import pytest

from edgeinfer.errors import UsageError
from edgeinfer.sizes import format_seconds, format_size, parse_seconds, parse_size


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("64MiB", 64 << 20),
        ("64MB", 64_000_000),
        ("67108864", 67108864),
        (67108864, 67108864),
        ("1.5 GiB", 3 << 29),
        ("64M", 64 << 20),
        ("512k", 512 << 10),
        ("10b", 10),
        ("48mib", 48 << 20),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_sizes(text, nbytes):
    assert parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["", "MiB", "64 potatoes", "-1", "0", 0, -5, "1e6", "64MiBMiB", "0.2", "\u0663MiB", True, 1.5, None])
def test_not_a_size(text):
    with pytest.raises(UsageError):
        parse_size(text)


@pytest.mark.parametrize(("text", "seconds"), [("100ms", 0.1), ("2s", 2.0), ("2", 2.0), (0.5, 0.5), ("5 min", 300.0), ("0", 0.0)])
def test_times(text, seconds):
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "ms", "-1s", -1, "soon", "1 day", float("nan"), float("inf"), True, None])
def test_not_a_time(text):
    with pytest.raises(UsageError):
        parse_seconds(text)


@pytest.mark.parametrize(("nbytes", "text"), [(1023, "1023 B"), (1536, "1.50 KiB"), (48 << 20, "48.0 MiB"), (5 << 40, "5120 GiB")])
def test_sizes_for_people(nbytes, text):
    assert format_size(nbytes) == text


@pytest.mark.parametrize(("seconds", "text"), [(834e-6, "834 us"), (0.0123, "12.3 ms"), (2.5, "2.50 s"), (90, "90.0 s")])
def test_times_for_people(seconds, text):
    assert format_seconds(seconds) == text
