"""onnxsim's static quantization: its default (int8 MatMul, Gemm, Conv), and the full graph."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import common
import onnx
import onnxsim

asked = common.request()


def work() -> None:
    """Quantize."""
    full = asked["mode"] == "full"
    model = onnx.load(asked["model"])
    onnx.save(onnxsim.quantize_static(model, common.feeds(asked["samples"]), full_graph=full), asked["output"])


common.report(work)
