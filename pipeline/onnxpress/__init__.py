"""Compress trained models for deployment, and prove it: export, prune, quantize, measure, price and gate."""

__version__ = "0.1.0"

import os

from onnxpress import imports

# Read when NumPy is imported. Our products are many and small: more threads of OpenBLAS gain nothing in them, and
# spin in between on the cores that onnxruntime needs.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
imports.install()
