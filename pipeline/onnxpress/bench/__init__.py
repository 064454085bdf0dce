"""Measuring speed, start-up and memory so that two models can be compared: `bench.bench` and its options.

Nothing is imported here: the worker process lives in this package, and its start-up time and memory are measured.
"""

SCHEMA = "onnxpress.bench/1"
UNFIT = ("aa-differs", "noisy-host", "few-pairs", "few-processes")
"""Doubts after which no release should be decided on the timings."""
BLOCKS = {"p90": 29, "p95": 59, "p99": 299, "p999": 2995}
"""Blocks of runs that bound a percentile from above: `statistics.enough_blocks`."""
