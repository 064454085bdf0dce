from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxpress.session import SessionOptions, open_session
from onnxpress.session import run as run_session

Arrays = Mapping[str, np.ndarray]
Build = Callable[..., ir.Model]
Run = Callable[[ir.Model, Arrays], list[np.ndarray]]


@pytest.fixture
def build() -> Build:
    """A model from ONNX text; arrays become initializers of the names that the text reads."""

    def build(text: str, arrays: Arrays | None = None, *, opset: int = 17, ir_version: int = 8) -> ir.Model:
        header = f'<ir_version: {ir_version}, opset_import: ["": {opset}]>'
        proto = onnx.parser.parse_model(text if text.lstrip().startswith("<") else header + text)
        proto.graph.initializer.extend(
            onnx.numpy_helper.from_array(value, name) for name, value in (arrays or {}).items()
        )
        return ir.from_proto(proto)

    return build


@pytest.fixture
def run() -> Run:
    """What onnxruntime computes without optimizing (the reference evaluator's grouped ConvTranspose is wrong)."""

    def run(model: ir.Model, feeds: Arrays) -> list[np.ndarray]:
        return list(run_session(open_session(model, SessionOptions(threads=1, optimization="off")), feeds).values())

    return run


@pytest.fixture
def ops() -> Callable[[ir.Model], dict[str, int]]:
    """How many nodes of each type a model has, subgraphs included."""
    return lambda model: dict(Counter(node.op_type for node in model.graph.all_nodes()))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
