"""Any DirectX 12 GPU on Windows through DirectML (the package onnxruntime-directml)."""

from collections.abc import Mapping

NAME = "DmlExecutionProvider"
DEVICE = "cpu"
BESIDE: tuple[str, ...] = ()
OPTIONS: Mapping[str, str] = {"device_id": "0"}
KEYS = frozenset(
    {
        "device_filter",
        "device_id",
        "disable_metacommands",
        "enable_dynamic_graph_fusion",
        "enable_graph_capture",
        "performance_preference",
    }
)
