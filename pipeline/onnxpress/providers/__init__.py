"""Execution providers: one file each, found by its name, which is the word on the command line (``--ep cuda``).

A file says five things: ``NAME`` (onnxruntime's own), ``DEVICE`` (where inputs and outputs are bound, so that a timed
run copies nothing), ``BESIDE`` (providers that take the nodes this one refuses, before the CPU does), ``OPTIONS`` (what
we always set, so that it is recorded) and ``KEYS`` (the options it knows: onnxruntime accepts any other in silence).
"""
