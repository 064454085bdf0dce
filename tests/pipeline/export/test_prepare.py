import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxpress import artifact
from onnxpress.export.prepare import prepare

Build = Callable[..., ir.Model]
Run = Callable[..., list[np.ndarray]]

REAL = Path(os.environ.get("ONNXPRESS_REAL_DATA", Path(__file__).parents[3] / "../shared/real"))
SECONDS = 10
"""Preparing a real model takes well under one second on a free core; more than this is a loop gone wrong."""


def proto_bytes(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def tokens(*shape: int) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(0).integers(0, 30000, shape)
    return {"input_ids": ids, "attention_mask": np.ones(shape, np.int64), "token_type_ids": np.zeros(shape, np.int64)}


def speech(rate: int) -> dict[str, np.ndarray]:
    samples = {16000: 512, 8000: 256}[rate]
    return {"input": floats(2, samples) / 10, "state": np.zeros((2, 2, 128), np.float32), "sr": np.array(rate)}


REAL_MODELS = {
    "imagenet500/squeezenet1_1_torchvision.onnx": [{"input": floats(2, 3, 224, 224)}],
    "cifar10/resnet20.onnx": [{"input": floats(1, 3, 32, 32)}, {"input": floats(7, 3, 32, 32)}],
    "cifar10/resnet56.onnx": [{"input": floats(3, 3, 32, 32)}],
    "audio/kws_dscnn_fp32.onnx": [{"input": floats(5, 1, 49, 10)}],
    "magika/magika_standard_v3_3.onnx": [
        {"bytes": np.random.default_rng(0).integers(0, 257, (batch, 2048), np.int32)} for batch in (1, 3)
    ],
    "mnist/mnist.onnx": [{"images": floats(1, 1, 28, 28)}],
    "text/all-MiniLM-L6-v2_fp32.onnx": [tokens(1, 9), tokens(3, 17)],
    "coco64/FastestDet.onnx": [{"input.1": floats(1, 3, 352, 352)}],
    "audio/silero_vad.onnx": [speech(16000), speech(8000)],
}


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real models in {REAL}")
@pytest.mark.parametrize("opset", [None, 21])
@pytest.mark.parametrize("file", REAL_MODELS)
def test_real_models(run: Run, file: str, opset: int | None) -> None:
    model = artifact.load(REAL / file)
    before = proto_bytes(model)
    started = time.perf_counter()
    edit = prepare(model, opset=opset)
    assert time.perf_counter() - started < SECONDS
    assert proto_bytes(model) == before, "the given model stays"
    onnx.checker.check_model(ir.to_proto(edit.model), full_check=True)
    assert edit.model.opset_imports[""] == opset or max(13, edit.facts["opset_before"])
    for values, given in (
        (edit.model.graph.inputs, model.graph.inputs),
        (edit.model.graph.outputs, model.graph.outputs),
    ):
        assert [(value.name, value.dtype) for value in values] == [(value.name, value.dtype) for value in given]
    for feeds in REAL_MODELS[file]:
        for found, expected in zip(run(edit.model, feeds), run(model, feeds), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    again = prepare(edit.model, opset=opset)
    assert again.changed == ()
    assert proto_bytes(again.model) == proto_bytes(edit.model)
    assert proto_bytes(prepare(artifact.load(REAL / file), opset=opset).model) == proto_bytes(edit.model)


@pytest.fixture
def untidy(build: Build, rng: np.random.Generator) -> ir.Model:
    """A little of everything that preparation is for."""
    return build(
        """g (float[N,2,4,4] x, float[3,2,1,1] w, float[M] unused) => (float[N,3] y, float[A,B,C,D] z) {
            c = Conv(x, w)
            b = BatchNormalization(c, scale, shift, mean, var)
            z = Relu(b)
            p = GlobalAveragePool(z)
            s = Shape(p)
            zero = Constant<value_ints=[0]>()
            one = Constant<value_ints=[1]>()
            batch = Slice(s, zero, one, zero)
            rest = Constant<value_ints=[-1]>()
            target = Concat<axis=0>(batch, rest)
            r = Reshape(p, target)
            d = Dropout(r)
            dead = Exp(r)
            y = Identity(d)
        }""",
        {
            "w": rng.normal(size=(3, 2, 1, 1)).astype(np.float32),
            "scale": np.array([1, 2, 3], np.float32),
            "shift": np.array([1, 0, 2], np.float32),
            "mean": np.array([0, 1, 2], np.float32),
            "var": np.array([1, 2, 1], np.float32),
        },
        opset=12,
        ir_version=3,
    )


def test_an_untidy_model(untidy: ir.Model, run: Run, rng: np.random.Generator) -> None:
    before = proto_bytes(untidy)
    edit = prepare(untidy)
    assert proto_bytes(untidy) == before
    assert [value.name for value in edit.model.graph.inputs] == ["x", "unused"]
    assert [value.name for value in edit.model.graph.outputs] == ["y", "z"]
    assert [node.op_type for node in edit.model.graph][:3] == ["Conv", "Relu", "GlobalAveragePool"]
    assert edit.skipped == ()
    feeds = {"x": rng.normal(size=(2, 2, 4, 4)).astype(np.float32), "unused": np.zeros(1, np.float32)}
    for found, expected in zip(run(edit.model, feeds), run(untidy, feeds), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_nothing_is_left_to_do(untidy: ir.Model) -> None:
    first = prepare(untidy)
    second = prepare(first.model)
    assert second.changed == ()
    assert second.facts["nodes_before"] == second.facts["nodes_after"] == first.facts["nodes_after"]
    assert proto_bytes(second.model) == proto_bytes(first.model)


def test_metadata_survives(untidy: ir.Model) -> None:
    untidy.metadata_props["who"] = "us"
    untidy.producer_name = "somebody"
    untidy.graph.name = "net"
    after = prepare(untidy).model
    assert (after.metadata_props["who"], after.producer_name, after.graph.name) == ("us", "somebody", "net")


def test_prepared_file_is_the_same_on_every_run(untidy: ir.Model, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        artifact.save(prepare(untidy).model, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
