"""Apple's Neural Engine, GPU and CPU through Core ML."""

from collections.abc import Mapping

NAME = "CoreMLExecutionProvider"
DEVICE = "cpu"
BESIDE: tuple[str, ...] = ()
OPTIONS: Mapping[str, str] = {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"}
KEYS = frozenset(
    {
        "AllowLowPrecisionAccumulationOnGPU",
        "EnableOnSubgraphs",
        "MLComputeUnits",
        "ModelCacheDirectory",
        "ModelFormat",
        "ProfileComputePlan",
        "RequireStaticInputShapes",
        "SpecializationStrategy",
    }
)
