"""NVIDIA GPUs through TensorRT, which builds an engine when the model is loaded; what it refuses goes to CUDA.

Without ``trt_engine_cache_enable`` the engine is built at every start, which shows in the cold start.
"""

from collections.abc import Mapping

NAME = "TensorrtExecutionProvider"
DEVICE = "cuda"
BESIDE = ("CUDAExecutionProvider",)
OPTIONS: Mapping[str, str] = {"device_id": "0"}
KEYS = frozenset(
    {
        "device_id",
        "trt_auxiliary_streams",
        "trt_bf16_enable",
        "trt_build_heuristics_enable",
        "trt_builder_optimization_level",
        "trt_context_memory_sharing_enable",
        "trt_cuda_graph_enable",
        "trt_dla_core",
        "trt_dla_enable",
        "trt_engine_cache_enable",
        "trt_engine_cache_path",
        "trt_engine_cache_prefix",
        "trt_engine_hw_compatible",
        "trt_force_sequential_engine_build",
        "trt_fp16_enable",
        "trt_int8_calibration_table_name",
        "trt_int8_enable",
        "trt_int8_use_native_calibration_table",
        "trt_layer_norm_fp32_fallback",
        "trt_max_partition_iterations",
        "trt_max_workspace_size",
        "trt_min_subgraph_size",
        "trt_op_types_to_exclude",
        "trt_profile_max_shapes",
        "trt_profile_min_shapes",
        "trt_profile_opt_shapes",
        "trt_sparsity_enable",
        "trt_tactic_sources",
        "trt_timing_cache_enable",
        "trt_timing_cache_path",
    }
)
