"""The same number of parameters, however a model's weights are stored."""

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from onnxpress import parameters
from onnxpress.export.prepare import prepare
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.quantize import quantize
from onnxpress_calibration.dataset import Dataset

WORDS, WIDTH, HIDDEN = 64, 32, 32


def network() -> ir.Model:
    """A table, two products, a convolution and an LSTM; shapes and axes as integers."""
    text = f"""<ir_version: 8, opset_import: ["": 21]>
    g (int64[N,6] ids) => (float[N,8] y) {{
        e = Gather(table, ids)
        h = MatMul(e, w1)
        hb = Add(h, b1)
        r = Relu(hb)
        t = Transpose<perm=[0,2,1]>(r)
        c = Conv<pads=[1,1]>(t, wc, bc)
        s = Transpose<perm=[2,0,1]>(c)
        l, last, cell = LSTM<hidden_size={HIDDEN}>(s, wl, rl)
        f = Reshape(last, flat)
        y = Gemm(f, w2, b2)
    }}"""
    shapes = {
        "table": (WORDS, WIDTH),
        "w1": (WIDTH, 64),
        "b1": (64,),
        "wc": (32, 64, 3),
        "bc": (32,),
        "wl": (1, 4 * HIDDEN, 32),
        "rl": (1, 4 * HIDDEN, HIDDEN),
        "w2": (HIDDEN, 8),
        "b2": (8,),
    }
    model = ir.from_proto(onnx.parser.parse_model(text))
    random = np.random.default_rng(0)
    arrays = {name: random.normal(size=shape, scale=0.3).astype(np.float32) for name, shape in shapes.items()}
    arrays["flat"] = np.array([-1, HIDDEN])
    for name, array in arrays.items():
        value = next(each for node in model.graph for each in node.inputs if each is not None and each.name == name)
        value.const_value, value.type = ir.tensor(array, name=name), ir.TensorType(ir.tensor(array).dtype)
        value.shape = ir.Shape(array.shape)
        model.graph.register_initializer(value)
    return prepare(model).model


EXPECTED = (
    WORDS * WIDTH + WIDTH * 64 + 64 + 32 * 64 * 3 + 32 + 2 * 4 * HIDDEN * HIDDEN + HIDDEN * 8 + 8
)  # without the shape
SAMPLES = Dataset(origin="ids", read=lambda: [{"ids": np.random.default_rng(1).integers(0, WORDS, (20, 6))}])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"format": "qoperator"},
        {"weights": "uint8"},
        {"mode": "dynamic"},
        {"mode": "weight-only"},
        {"mode": "weight-only", "bits": 4},
        {"mode": "fp16"},
    ],
    ids=str,
)
def test_quantization_changes_no_number_of_parameters(options: dict[str, object]) -> None:
    model = network()
    assert parameters.count(model) == EXPECTED
    given = QuantizeOptions.model_validate({"verify": False, "smooth": False} | options)
    made = quantize(model, given, SAMPLES if given.mode == "static" else None).model
    assert any("int" in tensor.dtype.name.lower() or given.mode == "fp16" for tensor in constants(made))
    assert parameters.count(made) == EXPECTED


def constants(model: ir.Model) -> list[ir.TensorProtocol]:
    return [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
