"""Measuring speed, start-up and memory so that two models can be compared: `bench.bench` and its options.

Nothing is imported here: the worker process lives in this package, and its start-up time and memory are measured.
"""

SCHEMA = "onnxpress.bench/1"
