"""NVIDIA GPUs through CUDA and cuDNN.

``use_tf32`` is onnxruntime's default, set here so that it is recorded: float32 products are then rounded to ten bits of
mantissa on Ampere and later, and a float32 baseline measured so is not float32. The arena grows as requested, not in
powers of two, so that its size says what the model needs.
"""

from collections.abc import Mapping

NAME = "CUDAExecutionProvider"
DEVICE = "cuda"
BESIDE: tuple[str, ...] = ()
OPTIONS: Mapping[str, str] = {"device_id": "0", "use_tf32": "1", "arena_extend_strategy": "kSameAsRequested"}
KEYS = frozenset(
    {
        "arena_extend_strategy",
        "cudnn_conv1d_pad_to_nc1d",
        "cudnn_conv_algo_search",
        "cudnn_conv_use_max_workspace",
        "device_id",
        "do_copy_in_default_stream",
        "enable_cuda_graph",
        "enable_cudnn",
        "enable_skip_layer_norm_strict_mode",
        "fuse_conv_bias",
        "gpu_mem_limit",
        "prefer_nhwc",
        "sdpa_kernel",
        "tunable_op_enable",
        "tunable_op_max_tuning_duration_ms",
        "tunable_op_tuning_enable",
        "use_ep_level_unified_stream",
        "use_tf32",
    }
)
