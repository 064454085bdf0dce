"""What kind of CPU this is, in the words of ``--target-cpu``, and what its int8 kernels make of a sum.

x86 CPUs without VNNI add two products of 8 bits in 16, and what does not fit is cut off: the same file has other
answers there (`onnxpress.quantization.pairs`). So that is measured, not read: a CPU's flags are those of the host in an
emulator, and unknown on some systems.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from onnxpress import host

FLAGS = {"amx_int8": "amx", "avx512_vnni": "vnni", "avx_vnni": "vnni", "avx512f": "avx512", "avx2": "avx2"}
"""The kind that a flag makes of an x86 CPU, the strongest first."""
ARM = ("aarch64", "arm64")
DOUBT = "other-cpu"
"""Code of the warnings that `made_for_others` words."""
EXACT = ("vnni", "amx", "arm")
"""Kinds for which weights may be such that sums are cut off elsewhere."""


@cache
def saturates() -> bool:
    """Tell whether onnxruntime's int8 kernels cut sums off at 16 bits here; measured, on one small product."""
    import numpy as np  # all of these here: a gate reads finished results without any of them
    import onnx_ir as ir

    from onnxpress import session

    weight = ir.tensor(np.full((8, 16), 127, np.int8), name="w")
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.UINT8), shape=ir.Shape([1, 8]))
    w = ir.Value(name="w", type=ir.TensorType(ir.DataType.INT8), shape=ir.Shape([8, 16]), const_value=weight)
    node = ir.node("MatMulInteger", [x, w], name="product")
    y = node.outputs[0]
    y.name, y.type, y.shape = "y", ir.TensorType(ir.DataType.INT32), ir.Shape([1, 16])
    graph = ir.Graph([x], [y], nodes=[node], initializers=[w], opset_imports={"": 17}, name="saturation")
    opened = session.open_session(ir.Model(graph, ir_version=8), session.SessionOptions(threads=1))
    given = session.run(opened, {"x": np.full((1, 8), 255, np.uint8)})["y"]
    return bool((given != 8 * 255 * 127).any())


def kind() -> str | None:
    """Return the kind of this CPU: amx, vnni, avx512, avx2 or arm; None where nothing tells."""
    this = host.describe()
    if this.arch in ARM:
        return "arm"
    known = next((kind for flag, kind in FLAGS.items() if flag in this.features), None)
    return "avx2" if saturates() and known not in ("avx2", "avx512") else known


def made_for_others(lineage: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say what a model loses here that was quantized for another kind of CPU (``--target-cpu``).

    Args:
        lineage: The model's steps, see `onnxpress.artifact.Artifact.lineage`.
    """
    for step in lineage:
        options = step.get("options", {}) if step.get("step") == "quantize" else {}
        target, here = options.get("target_cpu", "any"), kind()
        if target == "any" or here in (None, target) or options.get("mode") in ("weight-only", "fp16"):
            continue
        if target in EXACT and options.get("weights") != "uint8" and saturates():
            yield (
                f"was quantized for {target} CPUs (--target-cpu). Int8 sums are cut off on this one ({here}): its "
                "answers differ here. Quantize it with --target-cpu any to use it on both."
            )
        else:
            yield f"was quantized for {target} CPUs (--target-cpu); this one is {here}, so its times are not theirs."
