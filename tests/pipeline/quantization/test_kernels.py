"""Which layers a loaded session runs on integers, whatever onnxruntime renamed, fused or dropped."""

from collections.abc import Callable
from pathlib import Path

import graphs
import onnx_ir as ir
import pytest

from onnxpress import artifact
from onnxpress.errors import ModelError, UsageError
from onnxpress.export.prepare import prepare
from onnxpress.inspection import inspect, render
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.kernels import Kernels, kernels, require
from onnxpress.quantization.quantize import quantize

SHAPES = {graphs.conv_chain: (3, 8, 8), graphs.residual: (8, 6, 6), graphs.concat: (4, 6, 6), graphs.dense: (5, 16)}


def named(build: Callable[[], ir.Model]) -> ir.Model:
    """Return a model whose layers are called layer0, layer1, …"""
    model = build()
    found = [node for node in model.graph if node.op_type in ("Conv", "Gemm", "MatMul", "LSTM")]
    for index, node in enumerate(found):
        node.name = f"layer{index}"
    return model


def ran(model: ir.Model, folder: Path) -> Kernels:
    return kernels(artifact.save(model, folder / "m.onnx", force=True).path)


@pytest.mark.parametrize("build", list(SHAPES))
@pytest.mark.parametrize("written", ["qdq", "qoperator"])
def test_each_layer_is_found_again_and_only_the_excluded_one_is_float(
    build: Callable[[], ir.Model], written: str, tmp_path: Path
) -> None:
    model, data = named(build), graphs.normal((16, *SHAPES[build]))
    for index in (None, 0, 1):
        options = QuantizeOptions(format=written, exclude=None if index is None else f"^layer{index}$")
        found = ran(quantize(model, options, data).model, tmp_path).layers
        assert {layer.name for layer in found} == {f"layer{i}" for i in range(len(found))} and len(found) >= 2
        assert [layer.name for layer in found if not layer.int8] == ([] if index is None else [f"layer{index}"])


@pytest.mark.parametrize("mode", ["dynamic", "weight-only"])
def test_dynamic_and_weight_only_layers_keep_their_names(mode: str, tmp_path: Path) -> None:
    model = named(
        lambda: graphs.build(
            "g (float[N,8,4,4] x) => (float[N,64] y) { a = Conv (x, w1) f = Flatten(a) "
            "b = Gemm (f, w2, b2) r = Relu(b) y = MatMul(r, w3) }",
            {"w1": (16, 8, 3, 3), "w2": (64, 64), "b2": (64,), "w3": (64, 64)},
        )
    )
    found = ran(quantize(model, QuantizeOptions(mode=mode)).model, tmp_path).layers
    assert {layer.name: layer.int8 for layer in found} == {"layer0": False, "layer1": True, "layer2": True}
    reason = {"dynamic": "not quantized", "weight-only": "its integers become float when the model is loaded"}[mode]
    assert reason in next(layer.reason for layer in found if not layer.int8)


def test_a_recurrent_layer_in_a_body_is_found(tmp_path: Path) -> None:
    model = graphs.build(
        "g (bool c, float[5,N,8] x) => (float[5,1,N,16] y) { y = If (c) <"
        "then_branch = t () => (float[5,1,N,16] p) { p, h = LSTM <hidden_size=16> (x, w, r) }, "
        "else_branch = e () => (float[5,1,N,16] q) { q, j = LSTM <hidden_size=16> (x, v, u) }> }",
        {"w": (1, 64, 8), "r": (1, 64, 16), "v": (1, 64, 8), "u": (1, 64, 16)},
    )
    for index, node in enumerate(node for node in model.graph.all_nodes() if node.op_type == "LSTM"):
        node.name = f"layer{index}"
    found = ran(quantize(model, QuantizeOptions(mode="dynamic")).model, tmp_path).layers
    assert {layer.name for layer in found if layer.int8} == {"layer0", "layer1"}


def test_pairs_that_do_not_fuse_do_not_count(tmp_path: Path) -> None:
    model = named(graphs.conv_chain)
    made = quantize(model, QuantizeOptions(activations="uint16"), graphs.normal((16, 3, 8, 8))).model
    found = ran(made, tmp_path)
    assert not any(layer.int8 for layer in found.layers)
    assert {layer.reason for layer in found.layers} == {"onnxruntime did not fuse it to an int8 kernel"}
    assert found.copies == 0 and set(found.providers) <= {"CPUExecutionProvider"}


def test_require_names_the_layer_that_stayed_float_and_why() -> None:
    model, data = named(graphs.conv_chain), graphs.normal((16, 3, 8, 8))
    edit = quantize(model, QuantizeOptions(exclude="layer1"), data)
    require(edit.model, "layer[02]", edit.skipped)
    message = "1 of 3 layers run as float: Conv layer1: excluded by include/exclude"
    with pytest.raises(ModelError, match=message) as error:
        require(edit.model, "layer", edit.skipped)
    assert error.value.exit_code == 3
    with pytest.raises(ModelError, match=message):
        quantize(model, QuantizeOptions(exclude="layer1", require_int8="."), data)
    with pytest.raises(UsageError, match=r"matches none of the 3 layers \(layer0, layer1, layer2"):
        require(edit.model, "head")


def multiplying() -> ir.Model:
    """Layers in the forms that exporters write beside Conv and MatMul: all hold a weight."""
    return graphs.build(
        "g (float[N,5,32] x) => (float[N,4,5,16] y) <int64[4] s = {0, 5, 4, 16}> { "
        'a = Einsum <equation="bsd,de->bse"> (x, w1) r = Relu(a) h0 = Reshape(r, s) '
        "h = Transpose <perm=[0,2,1,3]> (h0) "
        'e = Einsum <equation="bhsd,hde->bhse"> (h, w2) l = MatMul(w3, e) y = Relu(l) }',
        {"w1": (32, 64), "w2": (4, 16, 16), "w3": (4, 5, 5)},
    )


def test_every_layer_counts_however_it_is_written(tmp_path: Path) -> None:
    model = multiplying()
    path = artifact.save(model, tmp_path / "float.onnx").path
    raw = kernels(path)
    assert len(raw.layers) == 3 and raw.float == 3
    options = QuantizeOptions(verify=False)
    edit = quantize(prepare(model).model, options, graphs.normal((8, 5, 32)))
    found = kernels(artifact.save(edit.model, tmp_path / "int8.onnx").path, edit.skipped)
    assert [(layer.op, layer.int8) for layer in found.layers] == [
        ("MatMul", True),
        ("Einsum", False),
        ("MatMul", False),
    ]
    reasons = [layer.reason for layer in found.layers]
    assert "equation bhsd,hde->bhse is no product with one matrix" in reasons[1]
    assert "its weight is the left operand" in reasons[2]


def test_inspect_counts_every_layer_and_free_axes_as_given(tmp_path: Path) -> None:
    model = multiplying()
    path = artifact.save(model, tmp_path / "float.onnx").path
    found = inspect(path)
    assert [layer["macs"] for layer in found["layers"]] == [5 * 32 * 64, 4 * 5 * 16 * 16, 4 * 5 * 5 * 16]
    assert found["macs"] == sum(layer["macs"] for layer in found["layers"])
    assert found["quantizable"]["nodes"] == 1 and len(found["quantizable"]["refused"]) == 2
    assert found["free_axes"] == "N = 1"
    assert any("MACs for one sample (free axes: N = 1; --shape NAME=SIZE)" in line for line in render(found))
