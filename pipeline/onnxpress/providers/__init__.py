"""Execution providers, one file each: ``NAME`` in onnxruntime and the ``OPTIONS`` we set explicitly."""
