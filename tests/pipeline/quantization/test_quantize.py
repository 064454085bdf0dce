"""Quantization end to end on small graphs: what onnxruntime runs, and how near it stays to float."""

from collections import Counter
from pathlib import Path

import graphs
import numpy as np
import onnx
import onnx.checker
import onnx_ir as ir
import pytest

from onnxpress import artifact, session
from onnxpress.errors import DataError, ModelError, UsageError
from onnxpress.quantization import QuantizeOptions, dynamic, static
from onnxpress.quantization.kernels import kernels
from onnxpress.quantization.placement import place
from onnxpress.quantization.profiling import profile
from onnxpress.quantization.quantize import quantize
from onnxpress.quantization.weights import Weights
from onnxpress_calibration import calibrators
from onnxpress_calibration.dataset import Dataset


def sqnr_db(model: ir.Model, quantized: ir.Model, feeds: dict[str, np.ndarray]) -> float:
    expected, given = (next(iter(session.run(session.open_session(m), feeds).values())) for m in (model, quantized))
    return float(10 * np.log10((expected**2).sum() / ((expected - given) ** 2).sum()))


everything = QuantizeOptions().selects


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def running(model: ir.Model, folder: Path) -> Counter[str]:
    path = artifact.save(model, folder / "m.onnx", force=True).path
    onnx.checker.check_model(path, full_check=True)
    return operators(session.optimized_graph(path))


STATIC = [
    (graphs.conv_chain, (64, 3, 8, 8), {"QLinearConv": 2, "QLinearGlobalAveragePool": 1, "QGemm": 1}),
    (graphs.residual, (64, 8, 6, 6), {"QLinearConv": 3, "QLinearAdd": 1}),
    (graphs.concat, (64, 4, 6, 6), {"QLinearConv": 3, "QLinearConcat": 1, "QLinearSigmoid": 1, "QLinearMul": 1}),
]


@pytest.mark.parametrize(("build", "shape", "expected"), STATIC)
@pytest.mark.parametrize("calibrator", calibrators.names())
def test_static_int8_runs_on_integers_and_stays_near_float(
    build: object, shape: tuple[int, ...], expected: dict[str, int], calibrator: str, tmp_path: Path
) -> None:
    model = build()  # type: ignore[operator]
    edit = quantize(model, QuantizeOptions(calibrator=calibrator), graphs.normal(shape))
    ran = running(edit.model, tmp_path)
    assert {name: ran[name] for name in expected} == expected
    assert not {"Conv", "FusedConv", "Gemm", "Relu"} & ran.keys()
    unseen = next(iter(graphs.normal((8, *shape[1:]), seed=9).read()))
    assert sqnr_db(model, edit.model, dict(unseen)) > 25


@pytest.mark.parametrize("mode", ["static", "dynamic"])
@pytest.mark.parametrize("build", [graphs.conv_chain, graphs.embedding])
def test_the_input_model_is_not_changed(build: object, mode: str) -> None:
    model = build()  # type: ignore[operator]
    chunk = {"x": np.ones((4, 3, 8, 8), np.float32), "ids": np.ones((4, 4), np.int64)}
    before = ir.to_proto(model).SerializeToString()
    quantize(model, QuantizeOptions(mode=mode), Dataset(origin="d", read=lambda: [chunk]))
    assert ir.to_proto(model).SerializeToString() == before


def test_equal_inputs_give_equal_bytes() -> None:
    made = [quantize(graphs.residual(), QuantizeOptions(), graphs.normal((16, 8, 6, 6))).model for _ in range(2)]
    assert ir.to_proto(made[0]).SerializeToString() == ir.to_proto(made[1]).SerializeToString()


def test_the_order_of_the_samples_changes_nothing() -> None:
    values = np.random.default_rng(3).normal(size=(20, 8, 6, 6)).astype(np.float32)
    halves = Dataset(origin="a", read=lambda: [{"x": values[:10]}, {"x": values[10:]}])
    backwards = Dataset(origin="b", read=lambda: [{"x": values[::-1]}])
    made = [quantize(graphs.residual(), QuantizeOptions(), data).model for data in (halves, backwards)]
    assert ir.to_proto(made[0]).SerializeToString() == ir.to_proto(made[1]).SerializeToString()


def test_float_weights_are_gone_from_the_file() -> None:
    edit = quantize(graphs.conv_chain(), QuantizeOptions(), graphs.normal((4, 3, 8, 8)))
    names = edit.model.graph.initializers.keys()
    assert not {"w1", "w2", "w3", "b1", "b2", "b3"} & names
    assert edit.model.graph.initializers["w2_q"].dtype == ir.DataType.INT8
    assert edit.model.graph.initializers["b2_q"].dtype == ir.DataType.INT32


def test_tied_weights_are_stored_once() -> None:
    model = graphs.build(
        "g (float[N,8] x) => (float[N,8] y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, w) }", {"w": (8, 8)}
    )
    edit = quantize(model, QuantizeOptions(), graphs.normal((16, 8)))
    assert (
        sum(
            value.dtype == ir.DataType.INT8 and len(value.shape) == 2
            for value in edit.model.graph.initializers.values()
        )
        == 1
    )
    assert edit.facts["int8_nodes"] == 2


def test_the_range_is_taken_after_the_activation() -> None:
    model = graphs.conv_chain()
    placement = place(model, everything)
    names = {value.name for value in placement.quantized}
    assert {"r", "d"} <= names and not {"a", "c"} & names
    inherited = {value.name: source.name for value, source in placement.quantized.items() if source is not value}
    assert inherited == {"p": "r", "f": "g"}


def test_a_mask_never_sets_a_range(tmp_path: Path) -> None:
    model = graphs.attention()
    random = np.random.default_rng(0)
    x, keep = random.normal(size=(32, 6, 16)).astype(np.float32), np.ones((32, 6), np.float32)
    keep[::2, 4:] = 0
    data = Dataset(origin="d", read=lambda: [{"x": x, "keep": keep}])
    edit = quantize(model, QuantizeOptions(), data)
    assert not {"s", "m", "mu", "sm", "p"} & {value.name for value in place(model, everything).quantized}
    assert running(edit.model, tmp_path)["MatMulIntegerToFloat"] == 4
    assert sqnr_db(model, edit.model, {"x": x[:4], "keep": keep[:4]}) > 25


@pytest.mark.int8
@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_an_embedding_is_looked_up_as_integers(mode: str, tmp_path: Path) -> None:
    model = graphs.embedding()
    ids = np.random.default_rng(0).integers(0, 200, (32, 4))
    data = Dataset(origin="d", read=lambda: [{"ids": ids}])
    edit = quantize(model, QuantizeOptions(mode=mode), data)
    path = artifact.save(edit.model, tmp_path / "m.onnx").path
    (gather,) = (node for node in session.optimized_graph(path).graph if node.op_type == "Gather")
    assert gather.inputs[0] is not None and gather.inputs[0].dtype == ir.DataType.INT8
    assert sqnr_db(model, edit.model, {"ids": ids}) > 30


def test_per_channel_beats_per_tensor_where_channels_differ() -> None:
    model = graphs.conv_chain()
    weight = model.graph.initializers["w2"]
    factors = np.logspace(-2, 1, 16, dtype=np.float32)  # undone by the next layer, so that every channel matters
    head = model.graph.initializers["w3"]
    weight.const_value = ir.tensor(weight.const_value.numpy() * factors[:, None, None, None], name="w2")  # type: ignore[union-attr]
    head.const_value = ir.tensor(head.const_value.numpy() / factors, name="w3")  # type: ignore[union-attr]
    model.graph.initializers["b2"].const_value = ir.tensor(np.zeros(16, np.float32), name="b2")
    data = graphs.normal((64, 3, 8, 8))
    feeds = dict(next(iter(graphs.normal((8, 3, 8, 8), seed=5).read())))
    error = [
        sqnr_db(model, quantize(model, QuantizeOptions(per_tensor=tensor), data).model, feeds) for tensor in (0, 1)
    ]
    assert error[0] > error[1]


def test_a_depthwise_convolution_is_quantized_per_channel(tmp_path: Path) -> None:
    model = graphs.build(
        "g (float[N,8,6,6] x) => (float[N,8,6,6] y) "
        "{ a = Conv <group=8, pads=[1,1,1,1]> (x, w) b = Clip(a, lo, hi) y = Conv(b, v) }",
        {"w": (8, 1, 3, 3), "v": (8, 8, 1, 1), "lo": (), "hi": ()},
    )
    for name, bound in (("lo", 0.0), ("hi", 6.0)):
        model.graph.initializers[name].const_value = ir.tensor(np.array(bound, np.float32), name=name)
    edit = quantize(model, QuantizeOptions(), graphs.normal((32, 8, 6, 6)))
    assert edit.model.graph.initializers["w_s"].shape == [8]
    ran = running(edit.model, tmp_path)
    assert ran["QLinearConv"] == 2 and not ran["Clip"]


@pytest.mark.int8
@pytest.mark.parametrize("build", [graphs.conv_chain, graphs.attention, graphs.embedding])
def test_dynamic_int8_loads_and_stays_near_float(build: object, tmp_path: Path) -> None:
    model = build()  # type: ignore[operator]
    edit = quantize(model, QuantizeOptions(mode="dynamic"))
    ran = running(edit.model, tmp_path)
    assert ran["DynamicQuantizeMatMul"] + ran["MatMulIntegerToFloat"] == edit.facts["int8_nodes"]
    random, feeds = np.random.default_rng(0), {}
    for value in model.graph.inputs:
        shape = [2, *list(value.shape)[1:]]  # type: ignore[arg-type]
        floats = random.normal(size=shape).astype(np.float32)
        feeds[value.name] = random.integers(0, 200, shape) if value.dtype == ir.DataType.INT64 else floats
    feeds |= {"keep": np.ones((2, 6), np.float32)} if "keep" in feeds else {}
    assert sqnr_db(model, edit.model, feeds) > 25


def test_dynamic_leaves_convolutions_float_and_says_why() -> None:
    edit = quantize(graphs.conv_chain(), QuantizeOptions(mode="dynamic"))
    assert operators(edit.model)["Conv"] == 2 and not operators(edit.model)["ConvInteger"]
    assert {skip.op for skip in edit.skipped if "slower than float" in skip.reason} == {"Conv"}


@pytest.mark.int8
@pytest.mark.parametrize("directions", [1, 2])
def test_dynamic_lstm(directions: int, tmp_path: Path) -> None:
    way = "forward" if directions == 1 else "bidirectional"
    model = graphs.build(
        f"g (float[5,N,8] x) => (float[5,{directions},N,16] y) "
        f'{{ y, h, c = LSTM <hidden_size=16, direction="{way}"> (x, w, r, b) }}',
        {"w": (directions, 64, 8), "r": (directions, 64, 16), "b": (directions, 128)},
    )
    edit = quantize(model, QuantizeOptions(mode="dynamic"))
    assert running_unchecked(edit.model, tmp_path)["DynamicQuantizeLSTM"] == 1
    x = np.random.default_rng(0).normal(size=(5, 3, 8)).astype(np.float32)
    assert sqnr_db(model, edit.model, {"x": x}) > 25


def running_unchecked(model: ir.Model, folder: Path) -> Counter[str]:
    """As `running`, for graphs with an operator that ONNX does not define."""
    return operators(session.optimized_graph(artifact.save(model, folder / "m.onnx").path))


def test_a_matmul_with_its_bias_becomes_one_kernel(tmp_path: Path) -> None:
    model = graphs.build(
        "g (float[N,8] x) => (float[N,4] y) { a = MatMul(x, w) y = Add(a, b) }", {"w": (8, 4), "b": (4,)}
    )
    edit = quantize(model, QuantizeOptions(), graphs.normal((32, 8)))
    assert running(edit.model, tmp_path) == {"QuantizeLinear": 1, "QGemm": 1}


def test_include_and_exclude_choose_nodes() -> None:
    model = graphs.conv_chain()
    for node, name in zip(
        [n for n in model.graph if n.op_type in ("Conv", "Gemm")], ("first", "second", "head"), strict=True
    ):
        node.name = name
    data = graphs.normal((4, 3, 8, 8))
    assert {"first", "second"} & set(quantize(model, QuantizeOptions(exclude="head"), data).changed) == {
        "first",
        "second",
    }
    only = quantize(model, QuantizeOptions(include="^second$"), data)
    assert "second" in only.changed and "first" not in only.changed
    assert {skip.where for skip in only.skipped} == {"first", "head"}


def test_graph_outputs_keep_their_names_and_are_float() -> None:
    model = graphs.residual()
    edit = quantize(model, QuantizeOptions(), graphs.normal((8, 8, 6, 6)))
    (output,) = edit.model.graph.outputs
    assert output.name == "y" and output.dtype == ir.DataType.FLOAT


@pytest.mark.parametrize(
    ("body", "weights", "op", "reason"),
    [
        ("g (float[N,3,4,4] x, float[2,3,1,1] w) => (float[N,2,4,4] y) { y = Conv(x, w) }", {}, "Conv", "run time"),
        (
            "g (float[N,3,4,4] x) => (float[N,2,8,8] y) "
            "{ y = ConvTranspose <strides=[2,2], kernel_shape=[2,2]> (x, w) }",
            {"w": (3, 2, 2, 2)},
            "ConvTranspose",
            "no int8 kernel",
        ),
        (
            "g (float[5,N,8] x) => (y) { y, h = GRU <hidden_size=4> (x, w, r) }",
            {"w": (1, 12, 8), "r": (1, 12, 4)},
            "GRU",
            "no int8 kernel",
        ),
        ("g (float[N,8] x) => (float[N,4] y) { y = Gemm <alpha=0.5> (x, w) }", {"w": (8, 4)}, "Gemm", "alpha"),
        ("g (float[N,2,4,8] x) => (float[N,2,4,4] y) { y = MatMul(x, w) }", {"w": (2, 8, 4)}, "MatMul", "3 axes"),
    ],
)
def test_what_cannot_run_on_integers_is_refused_by_name(
    body: str, weights: dict[str, tuple[int, ...]], op: str, reason: str
) -> None:
    model = graphs.build(body, weights)
    (skip,) = place(model, everything).skipped
    assert skip.op == op and reason in skip.reason
    with pytest.raises(ModelError, match=f"nothing in this model can run as static int8.*{reason}"):
        quantize(model, QuantizeOptions(), graphs.normal((2, 3, 4, 4)))


def test_nan_in_an_activation_names_the_tensor_and_the_samples() -> None:
    model = graphs.build("g (float[N,4] x) => (float[N,4] y) { s = Sqrt(x) y = MatMul(s, w) }", {"w": (4, 4)})
    values = np.ones((9, 4), np.float32)
    values[6] = -1
    with pytest.raises(DataError, match=r"tensor 's' holds NaN or infinity in sample 6"):
        quantize(model, QuantizeOptions(), Dataset(origin="d", read=lambda: [{"x": values}]))


def test_static_without_data_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="--calibration"):
        quantize(graphs.conv_chain(), QuantizeOptions())


def test_kernels_counts_what_runs_and_explains_what_does_not(tmp_path: Path) -> None:
    model = graphs.conv_chain()
    edit = quantize(model, QuantizeOptions(mode="dynamic"))
    found = kernels(artifact.save(edit.model, tmp_path / "m.onnx").path, edit.skipped)
    assert (found.int8, found.float) == (1, 2)
    assert {skip.reason for skip in found.stayed_float} == {skip.reason for skip in edit.skipped}
    assert found.float_bytes >= 4 * (8 * 3 * 9 + 16 * 8 * 9)
    plain = kernels(artifact.save(model, tmp_path / "f.onnx").path)
    assert plain.int8 == 0 and plain.float == 3


def test_samples_limits_the_calibration_data() -> None:
    model, seen = graphs.conv_chain(), []
    options = QuantizeOptions(
        samples=6, equalize=False, smooth=False, bias_correction=False, rounding="nearest", verify=False
    )
    quantize(model, options, graphs.normal((50, 3, 8, 8)), seen.append)
    assert sum(seen) == 6


def test_scores_are_pooled_in_float_so_that_they_do_not_become_ties(tmp_path: Path) -> None:
    model = graphs.build(
        "g (float[N,3,8,8] x) => (float[N,8] y) { a = Conv(x, w) r = Relu(a) p = GlobalAveragePool(r) y = Flatten(p) }",
        {"w": (8, 3, 3, 3)},
    )
    edit = quantize(model, QuantizeOptions(), graphs.normal((32, 3, 8, 8)))
    ran = running(edit.model, tmp_path)
    assert ran["QLinearConv"] == 1 and ran["GlobalAveragePool"] == 1 and not ran["QLinearGlobalAveragePool"]


@pytest.mark.int8
def test_static_and_dynamic_layers_share_one_model(tmp_path: Path) -> None:
    model = graphs.build(
        "g (float[N,4,16] x) => (float[N,4,8] y) { a = MatMul(x, w1) b = Relu(a) c = MatMul(b, w2) d = Relu(c) "
        "y = MatMul(d, w3) }",
        {"w1": (16, 32), "w2": (32, 16), "w3": (16, 8)},
    )
    first, second, third = (node.name or "" for node in model.graph if node.op_type == "MatMul")
    options, mixed = QuantizeOptions(), model.clone()
    placement = place(mixed, {first, third}.__contains__)
    names = [value.name or "" for value in placement.measured]
    found = profile(model, names, graphs.normal((64, 4, 16)))
    ranges = {name: calibrators.choose("minmax", found.tensors[name]) for name in names}
    assert static.write(mixed, placement, ranges, options).changed == (first, third)
    edit = dynamic.write(mixed, {second}.__contains__, options)
    assert edit.changed == (second,) and {skip.where for skip in edit.skipped} <= {first, third}
    ran = running(mixed, tmp_path)
    assert ran["DynamicQuantizeLinear"] + ran["DynamicQuantizeMatMul"] == 1 and not ran["MatMul"]
    feeds = dict(next(iter(graphs.normal((8, 4, 16), seed=5).read())))
    assert sqnr_db(model, mixed, feeds) > 25


def test_rewriting_takes_the_weights_from_memory_and_writes_the_same() -> None:
    model, options, weights = graphs.conv_chain(), QuantizeOptions(), Weights()
    ranges = {value.name or "": (-1.0, 3.0) for value in place(model, everything).candidates}

    def written(kept: Weights) -> bytes:
        copy = model.clone()
        static.write(copy, place(copy, everything), ranges, options, kept)
        return ir.to_proto(copy).SerializeToString()

    assert written(weights) == written(weights) == written(Weights())


@pytest.mark.parametrize("build", [graphs.conv_chain, graphs.residual, graphs.concat])
def test_every_placement_finds_its_ranges_among_the_candidates(build: object) -> None:
    model = build()  # type: ignore[operator]
    candidates = {value.name for value in place(model, everything).candidates}
    names = [node.name or "" for node in model.graph]
    for index in range(2 ** len(names)):
        chosen = {name for bit, name in enumerate(names) if index >> bit & 1}
        assert {value.name for value in place(model, chosen.__contains__).measured} <= candidates


@pytest.mark.int8
def test_dynamic_int8_reaches_the_bodies_of_if() -> None:
    model = graphs.build(
        "g (bool c, float[5,N,8] x) => (float[5,1,N,16] y) { y = If (c) <"
        "then_branch = t () => (float[5,1,N,16] p) { p, h = LSTM <hidden_size=16> (x, w, r) }, "
        "else_branch = e () => (float[5,1,N,16] q) { m = MatMul(x, v) ax = Constant <value_ints = [1]> () "
        "q = Unsqueeze(m, ax) }> }",
        {"w": (1, 64, 8), "r": (1, 64, 16), "v": (8, 16)},
    )
    edit = quantize(model, QuantizeOptions(mode="dynamic"))
    assert edit.facts["int8_nodes"] == 2
    assert not any(
        value.dtype == ir.DataType.FLOAT and value.shape.numpy()[-2:] in ((64, 8), (64, 16), (8, 16))
        for value in edit.model.graph.initializers.values()
        if len(value.shape) > 1
    )
    x = np.random.default_rng(0).normal(size=(5, 3, 8)).astype(np.float32)
    for branch in (True, False):
        assert sqnr_db(model, edit.model, {"c": np.array(branch), "x": x}) > 25


def test_the_loss_of_each_layer_alone_goes_into_the_facts() -> None:
    model, data = graphs.conv_chain(), graphs.normal((16, 3, 8, 8))
    layers = quantize(model, QuantizeOptions(), data).facts["sensitivity"]
    assert [layer["op"] for layer in layers] == ["Conv", "Conv", "Gemm"]
    assert all(0 < layer["static"] < 0.01 for layer in layers)
    assert "sensitivity" not in quantize(model, QuantizeOptions(verify=False), data).facts


def test_a_small_memory_budget_takes_more_passes_and_changes_no_bit() -> None:
    reads: list[int] = []
    values = np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)

    def read() -> list[dict[str, np.ndarray]]:
        reads.append(1)
        return [{"x": values}]

    def made(**chosen: object) -> tuple[bytes, int]:
        reads.clear()
        options = QuantizeOptions(**chosen)  # type: ignore[arg-type]
        edit = quantize(graphs.conv_chain(), options, Dataset(origin="counted", read=read))
        return ir.to_proto(edit.model).SerializeToString(), len(reads)

    (usual, few), (small, many) = made(), made(memory_budget="2 KiB")
    assert small == usual and many > few
