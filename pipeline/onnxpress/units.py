"""Quantities with a unit, as people write them: the only place where units are read and written.

==========  =====================================  ==========================  ================
dimension   example                                units                       number returned
==========  =====================================  ==========================  ================
``bytes``   ``25 MiB``, ``1.5 GB``                 B, kB … TB, KiB … TiB       bytes
``ms``      ``8 ms``, ``2 s``, ``3m``              ns, us/µs, ms, s, m/min, h  milliseconds
``ratio``   ``5%``, ``0.35x``                      %, x                        1 for 100%
``pp``      ``0.5pp``                              pp                          percentage points
``count``   ``100M``, ``1.5k``, ``250``            none, k, M, G/B             pieces
``usd``     ``1.20 USD``                           USD                         US dollars
``db``      ``30 dB``                              dB                          decibels
==========  =====================================  ==========================  ================

A prefix means what its standard says (kB = 1000 bytes, KiB = 1024 bytes), and a bare number is refused wherever a unit
is needed: nobody should have to guess whether ``max: 8`` is milliseconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Literal

from onnxpress.errors import UsageError

Dimension = Literal["bytes", "ms", "ratio", "pp", "count", "usd", "db"]

_UNITS: dict[Dimension, dict[str, float]] = {
    "bytes": {
        "B": 1,
        "kB": 1e3,
        "KB": 1e3,
        "MB": 1e6,
        "GB": 1e9,
        "TB": 1e12,
        "KiB": 2**10,
        "MiB": 2**20,
        "GiB": 2**30,
        "TiB": 2**40,
    },
    "ms": {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1, "s": 1e3, "m": 6e4, "min": 6e4, "h": 3.6e6},
    "ratio": {"%": 0.01, "x": 1},
    "pp": {"pp": 1},
    "count": {"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9},
    "usd": {"USD": 1},
    "db": {"dB": 1, "db": 1},
}
_EXAMPLE: dict[Dimension, str] = {
    "bytes": "25 MiB",
    "ms": "8 ms",
    "ratio": "5%",
    "pp": "0.5pp",
    "count": "100M",
    "usd": "1.20 USD",
    "db": "30 dB",
}
_SIGNED = ("ratio", "pp", "db")
_QUANTITY = re.compile(r"\s*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)\s*([^\d\s]*)\s*")


class UnitError(UsageError, ValueError):
    """A quantity that cannot be read. Also a ValueError, so that a pydantic validator adds the field's name to it."""


def parse(text: object, dimension: Dimension) -> float:
    """Read a quantity and return it as a number in the unit of its dimension (see the module's table).

    Args:
        text: What the user wrote; YAML gives a bare number as int or float.
        dimension: What it must measure.

    Raises:
        UnitError: not a number, no unit, or the unit of something else; a negative size, time, count or price.

    """
    units = _UNITS[dimension]
    match = None if isinstance(text, bool) else _QUANTITY.fullmatch(str(text))
    example = f"Write for example {_EXAMPLE[dimension]!r}."
    if match is None:
        raise UnitError(f"{text!r}: is no number with a unit. {example}")
    number, unit = match.groups()
    if unit not in units:
        known = ", ".join(name for name in units if name)
        problem = f"unknown unit {unit!r} (known: {known})" if unit else f"has no unit (one of {known})"
        raise UnitError(f"{text!r}: {problem}. {example}")
    value = float(Decimal(number) * Decimal(str(units[unit])))  # decimal, so that 0.29 GB is 290 MB exactly
    if not math.isfinite(value):
        raise UnitError(f"{text!r}: is too large. {example}")
    if value < 0 and dimension not in _SIGNED:
        raise UnitError(f"{text!r}: cannot be negative. {example}")
    if dimension == "count" and not value.is_integer():
        raise UnitError(f"{text!r}: is no whole number. {example}")
    return value


def parse_fraction(text: object) -> float:
    """Read a share of a whole, ``50%`` or ``0.5``: the one quantity whose bare number has a single meaning.

    Raises:
        UnitError: not a number from 0 to 1.

    """
    bare = isinstance(text, str) and "%" not in text
    try:
        value = parse(f"{text}x" if bare or isinstance(text, (int, float)) else text, "ratio")
    except UnitError:
        value = math.nan
    if not 0 <= value <= 1:
        raise UnitError(f"{text!r}: is no share of a whole. Write for example '50%' or 0.5.")
    return value


def parse_duration(text: object) -> timedelta:
    """Read a duration, ``5m``; one that was read before stays as it is. Raises like `parse`."""
    return text if isinstance(text, timedelta) else timedelta(milliseconds=parse(text, "ms"))


def show(value: float, dimension: Dimension) -> str:
    """Write a number for people, in the unit that suits its size; `parse` reads it back."""
    if dimension == "pp":
        return f"{value:.2f} pp"
    if dimension == "db":
        return f"{value:.1f} dB"
    formats: dict[Dimension, Callable[[float], str]] = {
        "bytes": format_bytes,
        "ms": format_ms,
        "ratio": format_ratio,
        "count": format_count,
        "usd": format_usd,
    }
    return formats[dimension](value)


def format_bytes(value: float) -> str:
    """``4963328`` → ``4.96 MB``."""
    return _scaled(value, {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1})


def format_ms(value: float) -> str:
    """``2.764`` → ``2.76 ms``; ``90000`` → ``1.50 min``."""
    return _scaled(value, {"h": 3.6e6, "min": 6e4, "s": 1e3, "ms": 1, "µs": 1e-3, "ns": 1e-6})


def format_ratio(value: float) -> str:
    """``0.0523`` → ``5.23%``."""
    return f"{_digits(100 * value)}%"


def format_change_pct(value: float) -> str:
    """``-41.23`` (percent, as in results) → ``-41.2%``; always with a sign."""
    return f"{value:+.1f}%"


def format_count(value: float) -> str:
    """``100000000`` → ``100M``; no digit is dropped."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= size:
            return f"{(Decimal(value) / size).normalize():f}{unit}"
    return f"{value:.0f}"


def format_usd(value: float) -> str:
    """``1.2`` → ``1.20 USD``; ``0.00123`` → ``0.00123 USD`` (at least cents, at least three digits)."""
    return f"{value:.2f} USD" if value == 0 or value >= 1 else f"{_digits(value)} USD"


def digits(value: float, count: int) -> str:
    """Write a number with so many significant digits and every digit left of the point, never with an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    places = count - 1 - math.floor(math.log10(abs(value)))
    text = f"{value:.{max(0, places)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _scaled(value: float, units: dict[str, float]) -> str:
    # 0.9995 and up rounds to 1.00 of the next unit, so it is shown in that unit.
    unit, size = next(((unit, size) for unit, size in units.items() if value >= 0.9995 * size), (None, 0.0))
    if unit is None:
        unit, size = list(units.items())[-1]
    return f"{_digits(value / size)} {unit}"


def _digits(value: float) -> str:
    """Three significant digits, never in exponent notation, all digits left of the point kept."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}") if abs(value) < 1000 else float(f"{value:.0f}")
    decimals = max(0, 2 - _exponent(rounded))
    return f"{rounded:.{decimals}f}"


def _exponent(value: float) -> int:
    return int(f"{value:e}".partition("e")[2])
