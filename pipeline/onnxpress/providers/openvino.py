"""Intel CPUs, GPUs and NPUs through OpenVINO (the package onnxruntime-openvino). Which one: ``device_type=GPU``."""

from collections.abc import Mapping

NAME = "OpenVINOExecutionProvider"
DEVICE = "cpu"
BESIDE: tuple[str, ...] = ()
OPTIONS: Mapping[str, str] = {"device_type": "CPU"}
KEYS = frozenset(
    {
        "cache_dir",
        "device_type",
        "disable_dynamic_shapes",
        "enable_opencl_throttling",
        "enable_qdq_optimizer",
        "layout",
        "load_config",
        "model_priority",
        "num_of_threads",
        "num_streams",
        "precision",
        "reshape_input",
    }
)
