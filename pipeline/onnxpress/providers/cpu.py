"""The CPU: onnxruntime's own kernels (MLAS)."""

from collections.abc import Mapping

NAME = "CPUExecutionProvider"
OPTIONS: Mapping[str, str] = {}
