"""The export arrow: whatever the user has becomes a prepared, verified ONNX model."""

from __future__ import annotations

from onnxpress.export.options import ExportOptions

__all__ = ["ExportOptions"]
