"""Compress trained models for deployment, and prove it: export, prune, quantize, measure, price and gate."""

__version__ = "0.1.0"

from onnxpress import imports

imports.install()
