"""Import onnx_ir without sympy, which it imports for arithmetic on symbolic dimensions that hardly a model asks for.

sympy is half of the time that loading a model's library takes (0.3 s) and 35 MB, in every command. While onnx_ir is
being imported, a stand-in takes sympy's place in it; whoever computes with symbols later gets the real one from there.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

LIBRARY, HEAVY = "onnx_ir", "sympy"


class StandIn(ModuleType):
    """Imports sympy when something of it is needed; while it stands in for it, its functions do so when called."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever is in the module
        if sys.modules.get(HEAVY) is self:
            return _later(name)
        return getattr(importlib.import_module(HEAVY), name)


def _later(name: str) -> Callable[..., Any]:
    def call(*arguments: object) -> Any:  # noqa: ANN401
        return getattr(importlib.import_module(HEAVY), name)(*arguments)

    return call


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        sys.modules[HEAVY] = StandIn(HEAVY)
        try:
            super().exec_module(module)
        finally:
            del sys.modules[HEAVY]


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != LIBRARY or HEAVY in sys.modules:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(name, spec.origin)
        return spec


def install() -> None:
    """Let a later ``import onnx_ir`` leave sympy out."""
    sys.meta_path.insert(0, _Finder())
