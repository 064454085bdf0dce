"""The CPU: onnxruntime's own kernels (MLAS)."""

from collections.abc import Mapping

NAME = "CPUExecutionProvider"
DEVICE = "cpu"
BESIDE: tuple[str, ...] = ()
OPTIONS: Mapping[str, str] = {}
KEYS: frozenset[str] = frozenset()
