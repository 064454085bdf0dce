"""The one check of a model: what no runtime takes is one line, what is only unusual is put right."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper  # noqa: TID251 - damaged protos are made here

from onnxpress import artifact
from onnxpress.errors import ModelError
from onnxpress.session import open_session, run
from onnxpress.wellformed import MalformedError, check

TEXT = """<ir_version: 8, opset_import: ["": 17]> g (float[N,2] x) => (float[N,2] y)
<float[2,2] w = {1, 2, 3, 4}> { h = MatMul(x, w)  y = LeakyRelu<alpha = 0.5>(h) }"""
Damage = Callable[[onnx.ModelProto], object]


def model(text: str = TEXT) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(text)
    for index, node in enumerate(proto.graph.node):
        node.name = f"n{index}"
    return proto


def found(proto: onnx.ModelProto) -> str:
    """Return what the check finds, "" for nothing."""
    try:
        check(proto, artifact.LINEAGE_KEY)
    except MalformedError as error:
        return str(error)
    return ""


def weight(dtype: int, dims: tuple[int, ...], **fields: object) -> Damage:
    """Give the weight other data: fields of the protocol buffer by name."""

    def damage(proto: onnx.ModelProto) -> None:
        tensor = proto.graph.initializer[0]
        tensor.CopyFrom(TensorProto(name="w", data_type=dtype, dims=dims, **fields))  # type: ignore[arg-type]

    return damage


F, I4, U8, S, C64 = TensorProto.FLOAT, TensorProto.INT4, TensorProto.UINT8, TensorProto.STRING, TensorProto.COMPLEX64


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (weight(F, (2, 2), raw_data=b"1" * 15), r"'w' is float \[2, 2\], which takes 16 bytes, and has 15"),
        (weight(F, (2, 2), raw_data=b"1" * 17), "and has 17"),
        (weight(F, (1 << 20, 1 << 20), raw_data=b""), "takes 4,398,046,511,104 bytes, and has 0"),
        (weight(F, (2, 2)), "takes 4 values, and has 0 in float_data"),
        (weight(F, (2, 2), float_data=[1]), "and has 1 in float_data"),
        (weight(F, (2, 2), float_data=[1] * 4, raw_data=b"1" * 16), "has its data twice"),
        (weight(F, (2, 2), int32_data=[1] * 4), "with data in int32_data in place of float_data"),
        (weight(C64, (2,), float_data=[1] * 2), "takes 4 values"),
        (weight(I4, (3,), raw_data=b"123"), r"int4 \[3\], which takes 2 bytes, and has 3"),
        (weight(I4, (3,), int32_data=[1] * 3), "takes 2 values"),
        (weight(U8, (1,), int32_data=[256]), r"with a value that it cannot hold \(256 to 256\)"),
        (weight(S, (1,), raw_data=b"a"), "and has 1"),
        (weight(S, (2,), string_data=[b"a"]), "takes 2 values, and has 1 in string_data"),
        (weight(F, (-1, 4), float_data=[]), r"has the shape \[-1, 4\]"),
        (weight(F, (1 << 62, 4), float_data=[]), r"has the shape \[4611686018427387904, 4\]"),
        (weight(0, (2,), raw_data=b"12345678"), "'w' has no dtype"),
        (weight(99, (2,), raw_data=b"12345678"), "'w' has the unknown dtype 99"),
    ],
)
def test_data_that_does_not_fit_its_tensor(damage: Damage, message: str) -> None:
    proto = model()
    damage(proto)
    with pytest.raises(MalformedError, match=message):
        check(proto, artifact.LINEAGE_KEY)


@pytest.mark.parametrize(
    "damage",
    [
        weight(F, (0, 4)),
        weight(F, (), float_data=[1]),
        weight(I4, (3,), raw_data=b"12"),
        weight(I4, (3,), int32_data=[200, 5]),
        weight(TensorProto.FLOAT16, (2,), int32_data=[15360, 65535]),
        weight(TensorProto.INT8, (2,), int32_data=[-128, 127]),
        weight(C64, (2,), float_data=[1] * 4),
        weight(TensorProto.UINT32, (1,), uint64_data=[5]),
        weight(S, (2,), string_data=[b"a", b"\xff"]),
    ],
)
def test_every_way_to_store_values(damage: Damage) -> None:
    proto = model()
    damage(proto)
    assert found(proto) == ""


def external(proto: onnx.ModelProto, **entries: str) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "a\0b"}, r"'a\\x00b' is no file name"),
        ({"location": ""}, "is no file name"),
        ({"location": "x" * 100_000}, "is no file name"),
        ({"location": "/etc/passwd"}, "points outside"),
        ({"location": "a/../../b"}, "points outside"),
        ({"location": "..\\b"}, "points outside"),
        ({"location": "w", "offset": "-1"}, "offset '-1' is no number of bytes"),
        ({"location": "w", "offset": "9" * 30}, "is no number of bytes"),
        ({"location": "w", "offset": "1e3"}, "is no number of bytes"),
        ({"location": "w", "length": "99"}, "length 99, it takes 16 bytes"),
    ],
)
def test_external_data_that_is_described_wrongly(entries: dict[str, str], message: str) -> None:
    proto = model()
    external(proto, **entries)
    with pytest.raises(MalformedError, match=message):
        check(proto, artifact.LINEAGE_KEY)


def node(operator: str, inputs: list[str], outputs: list[str], **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, outputs, **attributes)


def attribute(proto: onnx.ModelProto) -> AttributeProto:
    return proto.graph.node[1].attribute[0]


GRAPHS: dict[str, tuple[Damage, str]] = {
    "cycle": (lambda p: p.graph.node[0].input.__setitem__(0, "y"), r"node 'n0' \(MatMul\) waits for its own result"),
    "itself": (lambda p: p.graph.node[0].input.__setitem__(0, "h"), "waits for its own result"),
    "nothing": (lambda p: p.graph.node[0].input.__setitem__(1, "z"), r"node 'n0' \(MatMul\): 'z' is made by nothing"),
    "output": (lambda p: setattr(p.graph.output[0], "name", "z"), "output 'z': 'z' is made by nothing"),
    "no outputs": (lambda p: p.graph.ClearField("output"), "^has no outputs"),
    "two outputs": (lambda p: p.graph.output.add(name="y"), "output 'y' is there twice"),
    "two inputs": (lambda p: p.graph.input.add(name="x"), "input 'x': 'x' is defined twice"),
    "two initializers": (lambda p: p.graph.initializer.add().CopyFrom(p.graph.initializer[0]), "defined twice"),
    "no name": (lambda p: setattr(p.graph.initializer[0], "name", ""), "initializer '' has no name"),
    "twice": (lambda p: p.graph.node.append(node("Relu", ["x"], ["h"])), "'h' is defined twice"),
    "over a weight": (lambda p: p.graph.node.append(node("Relu", ["x"], ["w"])), "'w' is defined twice"),
    "long name": (lambda p: setattr(p.graph.node[0], "name", "n" * 70_000), "a name of 70,000 characters"),
    "no operator": (lambda p: setattr(p.graph.node[0], "op_type", ""), "has no operator"),
    "no input": (lambda p: p.graph.node[0].input.pop(), "has 1 inputs, it takes 2"),
    "empty input": (lambda p: p.graph.node[0].input.__setitem__(0, ""), "lacks its input A"),
    "many outputs": (lambda p: p.graph.node[0].output.append("more"), "has 2 outputs, it has 1"),
    "attribute without type": (lambda p: attribute(p).ClearField("type"), "attribute 'alpha' has no type"),
    "wrong field": (lambda p: setattr(attribute(p), "i", 1), "'alpha' is FLOAT and holds f, i"),
    "wrong type": (
        lambda p: attribute(p).CopyFrom(helper.make_attribute("alpha", [1.0])),
        "alpha is FLOATS in place of FLOAT",
    ),
    "no value": (lambda p: attribute(p).CopyFrom(AttributeProto(name="alpha", type=AttributeProto.TENSOR)), "nothing"),
    "reference": (
        lambda p: attribute(p).CopyFrom(AttributeProto(name="alpha", type=AttributeProto.FLOAT, ref_attr_name="a")),
        "refers to 'a', which no function around it has",
    ),
    "two attributes": (lambda p: p.graph.node[1].attribute.add().CopyFrom(attribute(p)), "two attributes of one name"),
    "lacks an attribute": (
        lambda p: p.graph.node[0].CopyFrom(node("Cast", ["x"], ["h"])),
        "lacks its attribute to",
    ),
    "a tensor in an attribute": (
        lambda p: p.graph.node[0].CopyFrom(node("Constant", [], ["h"], value=TensorProto(data_type=1, dims=[3]))),
        "attribute 'value' is float",
    ),
    "input without dtype": (lambda p: p.graph.input[0].type.tensor_type.ClearField("elem_type"), "'x' has no dtype"),
    "unknown dtype": (lambda p: setattr(p.graph.output[0].type.tensor_type, "elem_type", 77), "the unknown dtype 77"),
    "huge shape": (
        lambda p: p.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", F, [1 << 40, 1 << 40])),
        "more than 2⁶³ elements",
    ),
    "IR version": (lambda p: setattr(p, "ir_version", 10_000), "IR version 10000, the installed onnx"),
    "opset": (lambda p: setattr(p.opset_import[0], "version", 10_000), "operator set ai.onnx 10000, the installed"),
    "opset 0": (lambda p: setattr(p.opset_import[0], "version", 0), "operator set ai.onnx 0"),
    "two opsets": (lambda p: p.opset_import.add(domain="ai.onnx", version=5), "two operator sets"),
}


@pytest.mark.parametrize("damage", GRAPHS)
def test_graphs_that_no_runtime_takes(damage: str) -> None:
    proto = model()
    GRAPHS[damage][0](proto)
    with pytest.raises(MalformedError, match=GRAPHS[damage][1]):
        check(proto, artifact.LINEAGE_KEY)


def test_a_body_is_checked_too_and_sees_what_is_around_it() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (bool c, float[2] x) => (float[2] y) {
        z = Relu(x)
        y = If<then_branch = t () => (float[2] a) { a = Neg(z) }, else_branch = e () => (float[2] b) { b = Neg(x) }>(c)
    }"""
    assert found(model(text)) == ""
    body = model(text)
    body.graph.node[1].attribute[0].g.node[0].input[0] = "nowhere"
    assert found(body) == "node 'n1': node number 0 (Neg): 'nowhere' is made by nothing"
    cycle = model(text)
    cycle.graph.node[1].attribute[0].g.node[0].input[0] = "a"
    assert "waits for its own result" in found(cycle)
    through = model(text)  # the body waits for what its own node makes
    through.graph.node[1].attribute[0].g.node[0].input[0] = "y"
    assert found(through).startswith("node 'n1' (If) waits for its own result")


def functions(*bodies: tuple[str, list[onnx.NodeProto]]) -> onnx.ModelProto:
    """Return a model that calls the first of these functions of one input and output."""
    proto = model()
    proto.graph.node[1].CopyFrom(node(bodies[0][0], ["h"], ["y"], domain="own", name="n1"))
    proto.opset_import.add(domain="own", version=1)
    for name, nodes in bodies:
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        proto.functions.append(helper.make_function("own", name, ["a"], ["b"], nodes, imports))
    return proto


def test_functions() -> None:
    assert found(functions(("F", [node("Relu", ["a"], ["b"])]))) == ""
    assert found(functions(("F", [node("F", ["a"], ["b"], domain="own")]))) == "function 'F' calls itself"
    circle = functions(("F", [node("G", ["a"], ["b"], domain="own")]), ("G", [node("F", ["a"], ["b"], domain="own")]))
    assert "calls itself" in found(circle)
    assert "'F' is defined twice" in found(functions(("F", []), ("F", [])))
    assert "output 'b': 'b' is made by nothing" in found(functions(("F", [])))
    twice = [node("{}", ["a"], ["c"], domain="own"), node("{}", ["c"], ["b"], domain="own")]
    bodies = []
    for level in range(40):
        for each in twice:
            each.op_type = f"F{level + 1}"
        last = (
            [node("Relu", ["a"], ["b"])]
            if level == 39
            else [onnx.NodeProto.FromString(n.SerializeToString()) for n in twice]
        )
        bodies.append((f"F{level}", last))
    assert "more than 1,000,000 nodes" in found(functions(*bodies))


def test_an_attribute_may_refer_to_its_function() -> None:
    leaky = node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.append(AttributeProto(name="alpha", type=AttributeProto.FLOAT, ref_attr_name="slope"))
    proto = functions(("F", [leaky]))
    assert "refers to 'slope'" in found(proto)
    proto.functions[0].attribute.append("slope")
    assert found(proto) == ""


@pytest.mark.parametrize(
    "text", ['["x"]', "{}", "[1]", "nothing", "[" * 100_000, '[{"step": 1}]', '[{"step": "a", "options": 3}]']
)
def test_lineage_that_is_none(text: str) -> None:
    proto = model()
    proto.metadata_props.add(key=artifact.LINEAGE_KEY, value=text)
    assert found(proto).startswith("its lineage ")


@pytest.mark.parametrize("text", [b"n0", b"MatMul", b"alpha", b"w", b"x", b"N", b"y"])
def test_texts_that_are_no_utf8(tmp_path: Path, text: bytes) -> None:
    length = bytes([len(text)])
    content = model().SerializeToString().replace(length + text, length + b"\xff" * len(text))
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="no UTF-8"):
        artifact.load(tmp_path / "m.onnx")


def test_nodes_out_of_order_are_sorted_and_unknown_sizes_are_free(tmp_path: Path) -> None:
    proto = model()
    nodes = [proto.graph.node[1], proto.graph.node[0]]
    swapped = [onnx.NodeProto.FromString(each.SerializeToString()) for each in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(swapped)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(proto, tmp_path / "m.onnx")
    loaded = artifact.load(tmp_path / "m.onnx")
    assert [each.op_type for each in loaded.graph] == ["MatMul", "LeakyRelu"]
    assert loaded.graph.inputs[0].shape is not None and not isinstance(loaded.graph.inputs[0].shape[0], int)


@pytest.mark.parametrize("linear", [True, False])
def test_sparse_initializers_and_constants_are_written_out(tmp_path: Path, *, linear: bool) -> None:
    dense = np.array([[0, 2], [3, 0]], np.float32)
    flat = np.flatnonzero(dense)
    indices = flat if linear else np.argwhere(dense)
    values = numpy_helper.from_array(dense.ravel()[flat], "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(indices.astype(np.int64)), [2, 2])
    stored, constant = model(), model()
    del stored.graph.initializer[:], constant.graph.initializer[:]
    stored.graph.sparse_initializer.append(sparse)
    constant.graph.node.insert(0, node("Constant", [], ["w"], sparse_value=sparse))
    x = np.array([[1, 1], [0, 2]], np.float32)
    for name, proto in (("stored", stored), ("constant", constant)):
        onnx.save(proto, tmp_path / f"{name}.onnx")
        session = open_session(artifact.load(tmp_path / f"{name}.onnx"))
        np.testing.assert_array_equal(run(session, {"x": x})["y"], x @ dense)


@pytest.mark.parametrize(
    ("indices", "dims", "message"),
    [
        ([4], [2, 2], "do not fit"),
        ([-1], [2, 2], "do not fit"),
        ([[1, 2]], [2, 2], "do not fit"),
        ([0, 0], [2, 2], "do not fit"),
        ([0], [1 << 20, 1 << 20], "takes more than 268,435,456 bytes"),
        ([0], [-2, -2], "takes more than"),
    ],
)
def test_sparse_tensors_that_are_none(indices: list[int], dims: list[int], message: str) -> None:
    proto = model()
    values = numpy_helper.from_array(np.ones(len(indices), np.float32), "s")
    proto.graph.sparse_initializer.append(
        onnx.SparseTensorProto(values=values, indices=numpy_helper.from_array(np.array(indices)), dims=dims)
    )
    assert message in found(proto)


@pytest.mark.parametrize(
    ("body", "made"),
    [
        ("s = Constant<value_ints = [1]>() y = Expand(x, big)", "1,099,511,627,776"),
        ("y = ConstantOfShape(big)", "1,099,511,627,776"),
        ("y = Tile(x, big)", "1,099,511,627,776"),
        ("b = Constant<value = int64[2] {1048576, 1048576}>() y = Expand(x, b)", "1,099,511,627,776"),
        ("y = Range(zero, huge, one)", "1,099,511,627,776"),
    ],
)
def test_what_is_made_out_of_nothing(body: str, made: str) -> None:
    stored = "int64[2] big = {1048576, 1048576}, int64 zero = {0}, int64 one = {1}, int64 huge = {1099511627776}"
    text = f"""<ir_version: 8, opset_import: ["": 17]> g (float[1,1] x) => (y) <{stored}> {{ {body} }}"""
    assert f"makes {made} values out of nothing" in found(onnx.parser.parse_model(text))
    assert found(onnx.parser.parse_model(text.replace("1048576", "16").replace("1099511627776", "256"))) == ""


def test_an_input_that_no_memory_holds() -> None:
    proto = model()
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1 << 30
    assert "input 'x' takes more than" in found(proto)


def test_files_that_are_too_large_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "m.onnx").open("wb") as stream:
        stream.truncate(3 << 30)
    with pytest.raises(ModelError, match="3,221,225,472 bytes are no ONNX file"):
        artifact.load(tmp_path / "m.onnx")
