"""Quantization to int8: `quantize` and its options."""

from onnxpress.quantization.options import QuantizeOptions

__all__ = ["QuantizeOptions"]
