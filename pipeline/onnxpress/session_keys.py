"""The session options of onnxruntime that a user may set by name: the allow-list behind ``--session-option KEY=VALUE``.

onnxruntime accepts any key and ignores those it does not know, so a misspelt option would be recorded as part of a
measurement that it never was part of. `CONFIG` are configuration entries (``onnxruntime_session_options_config_keys.h``
of 1.31), `ATTRIBUTES` are attributes of ``SessionOptions`` with the values they take; `OWN` have an option of ours.
"""

from __future__ import annotations

from collections.abc import Mapping

CONFIG = frozenset(
    {
        "mlas.disable_kleidiai",
        "mlas.enable_gemm_fastmath_arm64_bfloat16",
        "mlas.kleidiai.conv_igemm_max_work",
        "mlas.nchwc_depthwise_sliding",
        "mlas.nchwc_pointwise_conv_max_input_channel_batch",
        "mlas.qnbit.force_fp32",
        "mlas.use_lut_gemm",
        "optimization.disable_specified_optimizers",
        "optimization.enable_cast_chain_elimination",
        "optimization.enable_gelu_approximation",
        "optimization.minimal_build_optimizations",
        "session.collect_node_memory_stats_to_file",
        "session.disable_aot_function_inlining",
        "session.disable_cpu_ep_fallback",
        "session.disable_double_qdq_remover",
        "session.disable_prepacking",
        "session.disable_qdq_constant_folding",
        "session.disable_quant_qdq",
        "session.dynamic_block_base",
        "session.enable_dq_matmulnbits_fusion",
        "session.enable_quant_qdq_cleanup",
        "session.graph_optimizations_loop_level",
        "session.inter_op.allow_spinning",
        "session.inter_op.spin_backoff_max",
        "session.inter_op.spin_duration_us",
        "session.intra_op.spin_backoff_max",
        "session.intra_op.spin_duration_us",
        "session.intra_op_thread_affinities",
        "session.load_model_format",
        "session.prepack.enable_parallel",
        "session.qdq_matmulnbits_accuracy_level",
        "session.qdq_matmulnbits_block_size",
        "session.qdqisint8allowed",
        "session.record_ep_graph_assignment_info",
        "session.save_external_prepacked_constant_initializers",
        "session.set_denormal_as_zero",
        "session.use_device_allocator_for_initializers",
        "session.use_env_allocators",
        "session.use_ort_model_bytes_directly",
        "session.use_ort_model_bytes_for_initializers",
        "session.x64quantprecision",
    }
)
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "enable_cpu_mem_arena": ("0", "1"),
    "enable_mem_pattern": ("0", "1"),
    "enable_mem_reuse": ("0", "1"),
    "use_deterministic_compute": ("0", "1"),
    "use_per_session_threads": ("0", "1"),
    "execution_order": ("default", "priority_based"),
}
"""The values that each attribute takes; those of ``execution_order`` are members of ``onnxruntime.ExecutionOrder``."""
OWN: Mapping[str, str] = {
    "session.intra_op.allow_spinning": "--spin",
    "session.force_spinning_stop": "--spin",
    "session.intra_op_num_threads": "--threads",
    "intra_op_num_threads": "--threads",
}
"""Options that are set in another way: one setting, one place."""
