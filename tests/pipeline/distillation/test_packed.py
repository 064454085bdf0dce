"""onnxruntime's packed operators written with standard ones and back: the same function, and training reaches them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from onnxpress import graph
from onnxpress.distillation.distill import distill
from onnxpress.distillation.interpreter import Interpreter
from onnxpress.distillation.options import DistillOptions
from onnxpress.distillation.packed import pack, unpack
from onnxpress.errors import ModelError
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.quantize import quantize
from onnxpress.session import SessionOptions, open_session, run
from onnxpress_calibration.dataset import Dataset

Array = np.ndarray[Any, np.dtype[Any]]
WORDS, WIDTH, CLASSES = 50, 40, 24


def classifier(seed: int = 0) -> ir.Model:
    """words -> Gather -> MatMul -> Relu -> ReduceMean -> Gemm, with random weights; 40 columns do not fill blocks."""
    random = np.random.default_rng(seed)
    words = ir.Value(name="words", shape=ir.Shape(["N", 6]), type=ir.TensorType(ir.DataType.INT64))
    table, hidden, out, bias = (
        ir.Value(name=name, const_value=ir.tensor(array, name=name), shape=ir.Shape(array.shape))
        for name, array in {
            "table": random.normal(size=(WORDS, WIDTH)).astype(np.float32),
            "hidden": (random.normal(size=(WIDTH, 48)) / 6).astype(np.float32),
            "out": (random.normal(size=(CLASSES, 48)) / 3).astype(np.float32),
            "bias": random.normal(size=CLASSES).astype(np.float32),
        }.items()
    )
    axes = ir.Value(name="axes", const_value=ir.tensor(np.array([1]), name="axes"))
    constants = [table, hidden, out, bias, axes]
    for value in constants:
        assert value.const_value is not None
        value.type = ir.TensorType(value.const_value.dtype)
    nodes = [ir.node("Gather", [table, words], name="look")]
    nodes.append(ir.node("MatMul", [nodes[-1].outputs[0], hidden], name="product"))
    nodes.append(ir.node("Relu", nodes[-1].outputs, name="relu"))
    nodes.append(ir.node("ReduceMean", [nodes[-1].outputs[0], axes], {"keepdims": 0}, name="mean"))
    nodes.append(ir.node("Gemm", [nodes[-1].outputs[0], out, bias], {"transB": 1}, name="last"))
    result = nodes[-1].outputs[0]
    result.name = "scores"
    for node, shape in zip(nodes, [["N", 6, WIDTH], *[["N", 6, 48]] * 2, ["N", 48], ["N", CLASSES]], strict=True):
        node.outputs[0].shape, node.outputs[0].type = ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
    main = ir.Graph([words], [result], nodes=nodes, initializers=constants, opset_imports={"": 21}, name="g")
    return ir.Model(main, ir_version=10)


def samples(count: int = 64) -> Dataset:
    arrays = {"words": np.random.default_rng(1).integers(0, WORDS, (count, 6))}
    return Dataset(origin="words", read=lambda: [arrays])


def answers(model: ir.Model) -> Array:
    return run(open_session(model, SessionOptions(threads=1)), dict(next(iter(samples().read()))))["scores"]


def packed(bits: int) -> ir.Model:
    model = quantize(classifier(), QuantizeOptions(mode="weight-only", bits=bits, block_size=16)).model
    for node in model.graph:
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", 1)  # float products, to compare exactly
    return model


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("bits", [4, 8])
def test_standard_operators_compute_the_same_and_packing_again_changes_nothing(bits: int) -> None:
    model = packed(bits)
    wanted, operators = answers(model), kinds(model)
    before = {name: graph.constant(value) for name, value in model.graph.initializers.items()}
    found = unpack(model)
    assert len(found) == (3 if bits == 4 else 2)
    assert not {"MatMulNBits", "GatherBlockQuantized"} & {*kinds(model)}
    given = Interpreter(model)({"words": torch.from_numpy(next(iter(samples().read()))["words"])})["scores"]
    np.testing.assert_allclose(given.detach().numpy(), wanted, atol=1e-5)
    pack(model, found)
    assert kinds(model) == operators
    after = {name: graph.constant(value) for name, value in model.graph.initializers.items()}
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    np.testing.assert_array_equal(answers(model), wanted)


def test_a_student_of_packed_weights_comes_closer_to_its_teacher() -> None:
    teacher, student = classifier(), packed(4)
    options = DistillOptions(steps=100, learning_rate=0.01)
    made = distill(student, teacher, options, samples()).model
    assert kinds(made) == kinds(student)
    before, after = (np.square(answers(model) - answers(teacher)).mean() for model in (student, made))
    assert after < before / 2
    for name, value in student.graph.initializers.items():
        stored = made.graph.initializers[name].const_value
        assert stored is not None and value.const_value is not None
        assert (stored.shape, stored.dtype) == (value.const_value.shape, value.const_value.dtype)


def test_what_cannot_be_unpacked_is_refused_by_name() -> None:
    model = packed(4)
    node = next(node for node in model.graph if node.op_type == "MatMulNBits")
    node.attributes["bits"] = ir.AttrInt64("bits", 2)
    with pytest.raises(ModelError, match=r"node 'product': MatMulNBits with 2 bits cannot be trained through"):
        distill(model, classifier(), DistillOptions(steps=1), samples())
