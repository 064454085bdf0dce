"""Where prices come from: one file for each catalogue, found by its name (``--format gcosts``, ``--from gcosts``).

A file has ``parse(content, chosen)``, which reads the catalogue's own format into rows; and ``url(chosen)``, where the
catalogue can be downloaded, or raises a UsageError. Nothing is downloaded but by `refresh`, and nobody's catalogue is
part of this product: prices are facts, their collections belong to those who made them.
"""

from __future__ import annotations

import csv
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType

from onnxpress.cost.prices import Price
from onnxpress.errors import DataError, UsageError, did_you_mean

TIMEOUT_S = 60
MAX_BYTES = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which rows of a catalogue are wanted."""

    provider: str | None = None
    """Of catalogues that have one file per provider."""
    regions: tuple[str, ...] = ()
    """Empty for all."""
    types: tuple[str, ...] = ()
    """Empty for all; with wildcards."""

    def wants(self, instance_type: str, region: str) -> bool:
        """Tell whether a row is wanted."""
        return (not self.regions or region in self.regions) and (
            not self.types or any(fnmatchcase(instance_type, pattern) for pattern in self.types)
        )


def names() -> list[str]:
    """Return the names of the catalogues: the files of this folder."""
    return sorted(file.stem for file in Path(__file__).parent.glob("*.py") if file.stem != "__init__")


def source(name: str) -> ModuleType:
    """Return the file of a catalogue.

    Raises:
        UsageError: there is none of this name.

    """
    if name not in names():
        raise UsageError(f"price source {name!r}: unknown.{did_you_mean(name, names())}")
    return importlib.import_module(f"onnxpress.cost.sources.{name}")


def parse(name: str, content: bytes, chosen: Chosen, *, where: str) -> list[Price]:
    """Read a catalogue.

    Args:
        name: Of its format.
        content: The catalogue.
        chosen: Rows that are wanted.
        where: File or address, for messages.

    Raises:
        UsageError: there is no such format.
        DataError: the content is something else, or has no such row.

    """
    reader = source(name)
    try:
        rows: Sequence[Price] = reader.parse(content, chosen)
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration, RecursionError, csv.Error) as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(f"prices {where}: not in the format {name} ({type(error).__name__}: {said}).") from error
    if not rows:
        raise DataError(f"prices {where}: no row matches. Check --region and --type; names are those of the provider.")
    return list({row.instance: row for row in rows}.values())


def refresh(name: str, chosen: Chosen, *, fetch: Callable[[str], bytes] | None = None) -> tuple[list[Price], str]:
    """Download a catalogue and read it; the only function of the product that contacts a network for prices.

    Returns:
        The rows, and the address they come from.

    Raises:
        UsageError: there is no such catalogue, or it needs to know more.
        DataError: the download failed, or is something else than expected.

    """
    address: str = source(name).url(chosen)
    return parse(name, (fetch or download)(address), chosen, where=address), address


def download(address: str) -> bytes:
    """Return what is at an https address.

    Raises:
        DataError: it cannot be had.

    """
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(address, timeout=TIMEOUT_S) as reply:  # noqa: S310 - addresses are https constants of the sources
            content: bytes = reply.read(MAX_BYTES)
            return content
    except (URLError, OSError, ValueError) as error:
        raise DataError(f"prices {address}: cannot be downloaded ({error}). Import a file instead.") from error
