"""ONNX's own test cases, one operator in each: what the runtime computes as expected, it computes when prepared, too.

And whatever is made of one, in any mode, is a file that loads and runs. Beside each case as it is there is one whose
inputs but the first are constants, as weights are, so that there is something to quantize and to prune.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from onnxpress.errors import DataError, ModelError, UsageError
from onnxpress.export.prepare import prepare
from onnxpress.pruning import PruneOptions, prune
from onnxpress.quantization import QuantizeOptions, placement, weight_only
from onnxpress.quantization.quantize import quantize
from onnxpress_calibration.dataset import Dataset

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

EXPECTED = {("1.23.2", "1.31.1"): 1433}
"""Cases that are computed as expected, by the versions of onnx and onnxruntime."""
Values = list[Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model that the runtime computes as onnx expects it."""

    name: str
    proto: onnx.ModelProto
    samples: list[tuple[Values, Values]]
    """Inputs and outputs, in order."""
    rtol: float
    atol: float

    def agrees(self, found: Values, expected: Values) -> bool:
        """Tell whether outputs are as expected."""
        try:
            Runner.assert_similar_outputs(expected, found, rtol=self.rtol, atol=self.atol)
        except (AssertionError, TypeError, ValueError):
            return False
        return True


def session(proto: onnx.ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def outputs(proto: onnx.ModelProto, inputs: Values) -> Values:
    """Run a model; what it takes as float16 is given so."""
    opened = session(proto)
    feeds = {
        given.name: value.astype(np.float16) if given.type == "tensor(float16)" else value
        for given, value in zip(opened.get_inputs(), inputs, strict=True)
    }
    return list(opened.run(None, feeds))


def given_cases() -> Iterator[Case]:
    """Yield the cases that come with onnx, as they are."""
    for kind in ("node", "simple", "pytorch-operator", "pytorch-converted"):
        for case in load_model_tests(kind=kind):
            if case.model is not None:
                samples = [(list(inputs), list(expected)) for inputs, expected in case.data_sets]
                yield Case(name=case.name, proto=case.model, samples=samples, rtol=case.rtol, atol=case.atol)
            elif case.url is None:
                folder = Path(case.model_dir)
                proto = onnx.load(folder / "model.onnx")
                sets = sorted(folder.glob("test_data_set_*"))
                samples = [
                    (stored(each, "input", proto.graph.input), stored(each, "output", proto.graph.output))
                    for each in sets
                ]
                yield Case(name=case.name, proto=proto, samples=samples, rtol=case.rtol, atol=case.atol)


READERS = {
    "tensor_type": (onnx.TensorProto, numpy_helper.to_array),
    "sequence_type": (onnx.SequenceProto, numpy_helper.to_list),
    "optional_type": (onnx.OptionalProto, numpy_helper.to_optional),
}


def stored(folder: Path, kind: str, described: Sequence[onnx.ValueInfoProto]) -> Values:
    """Read the files ``input_0.pb``, …"""
    found = []
    for index in range(len(list(folder.glob(f"{kind}_*.pb")))):
        proto, read = READERS[described[index].type.WhichOneof("value")]
        found.append(read(proto.FromString((folder / f"{kind}_{index}.pb").read_bytes())))
    return found


def as_expected(case: Case) -> bool:
    try:
        return all(case.agrees(outputs(case.proto, inputs), expected) for inputs, expected in case.samples)
    except Exception:
        return False


@cache
def cases() -> list[Case]:
    onnxruntime.set_default_logger_severity(4)
    return [case for case in given_cases() if as_expected(case)]


@cache
def frozen() -> list[Case]:
    """Return the cases with all inputs but the first constant, where they stay what the runtime runs."""
    found = []
    for case in cases():
        inputs, expected = case.samples[0]
        given = len(case.proto.graph.input)
        if len(inputs) != given or given < 2 or not all(isinstance(value, np.ndarray) for value in inputs[1:]):
            continue
        proto = onnx.ModelProto()
        proto.CopyFrom(case.proto)
        names = [value.name for value in proto.graph.input][1:]
        for name, value in zip(names, inputs[1:], strict=True):
            tensor = numpy_helper.from_array(value, name)
            del proto.graph.input[1]
            proto.graph.initializer.append(tensor)
        made = Case(name=case.name, proto=proto, samples=[(inputs[:1], expected)], rtol=case.rtol, atol=case.atol)
        if as_expected(made):
            found.append(made)
    return found


@cache
def prepared(name: str, constants: bool) -> ir.Model:
    (case,) = (case for case in (frozen() if constants else cases()) if case.name == name)
    return prepare(ir.from_proto(case.proto)).model


def test_the_runtime_runs_as_many_cases_as_ever() -> None:
    versions = (onnx.__version__, onnxruntime.__version__)
    assert len({case.name for case in cases()}) == len(cases()) == EXPECTED.get(versions, len(cases())) > 1300


@pytest.mark.parametrize("constants", [False, True])
def test_prepared_models_give_the_same_answers(constants: bool) -> None:
    wrong = []
    for case in frozen() if constants else cases():
        try:
            proto = ir.to_proto(prepared(case.name, constants))
            if not all(case.agrees(outputs(proto, inputs), expected) for inputs, expected in case.samples):
                wrong.append(case.name)
        except Exception as error:
            wrong.append(f"{case.name}: {error}")
    assert wrong == []


def data(model: ir.Model, case: Case) -> Dataset:
    names = [value.name or "" for value in model.graph.inputs]
    batches = [dict(zip(names, inputs, strict=True)) for inputs, _ in case.samples]
    return Dataset(origin="case", read=lambda: batches)


def quantized(**chosen: Any) -> Callable[[ir.Model, Case], ir.Model]:
    options = QuantizeOptions.model_validate({"verify": False, **chosen})
    needs_data = options.mode == "static"
    return lambda model, case: quantize(model, options, data(model, case) if needs_data else None).model


MAKERS: dict[str, Callable[[ir.Model, Case], ir.Model]] = {
    "dynamic": quantized(mode="dynamic"),
    "static": quantized(mode="static"),
    "weight-only-8": quantized(mode="weight-only"),
    "weight-only-4": quantized(mode="weight-only", bits=4),
    "fp16": quantized(mode="fp16"),
    "fp16-half-io": quantized(mode="fp16", keep_io=False),
    "prune-weights": lambda model, _: prune(model, PruneOptions(granularity="weight", amount=0.5)).model,
}

MADE = {
    "dynamic": (1, 16),
    "static": (1, 16),
    "weight-only-8": (1, 213),
    "weight-only-4": (1, 213),
    "fp16": (1000, 690),
    "fp16-half-io": (1000, 690),
    "prune-weights": (0, 100),
}
"""So many cases at least have something to change, as they are and with constants."""
SHORT = [mode for mode in MAKERS if "prune" not in mode]
"""Where cases as they are have something to change; to prune there is nothing, and it takes long to find that out."""


@pytest.mark.parametrize(("mode", "constants"), [(mode, True) for mode in MAKERS] + [(mode, False) for mode in SHORT])
def test_what_is_made_loads_and_runs(mode: str, constants: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_only, "MIN_SIZE", 1)
    monkeypatch.setattr(placement, "MIN_TABLE", 1)
    made, wrong = 0, []
    for case in frozen() if constants else cases():
        model = prepared(case.name, constants)
        try:
            proto = ir.to_proto(MAKERS[mode](model, case))
        except (DataError, ModelError, UsageError) as error:
            if "does not load" in str(error):
                wrong.append(f"{case.name}: {error}")
            continue
        except Exception as error:
            wrong.append(f"{case.name}: {error!r}")
            continue
        made += 1
        try:
            outputs(proto, case.samples[0][0])
        except Exception as error:
            wrong.append(f"{case.name}: {error}")
    assert wrong == [] and made >= MADE[mode][constants]
