"""Sessions: explicit options, errors a person can act on, and the graph that really runs."""

import os
from pathlib import Path

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from onnxpress import artifact, host, session
from onnxpress.errors import ModelError, UsageError
from onnxpress.session import SessionOptions

TEXT = '<ir_version: 8, opset_import: ["": 17]> g (float[N,2] x) => (float[N,2] y) { a = Relu(x) y = Identity(a) }'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return artifact.save(ir.from_proto(onnx.parser.parse_model(TEXT)), tmp_path / "m.onnx").path


def test_outputs_come_by_name(path: Path) -> None:
    x = np.array([[-1, 2]], np.float32)
    assert session.run(session.open_session(path), {"x": x})["y"].tolist() == [[0, 2]]


def test_a_model_in_memory_runs_too(path: Path) -> None:
    opened = session.open_session(artifact.load(path))
    assert session.run(opened, {"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[1, 1]]


def test_threads_default_to_what_is_usable(path: Path) -> None:
    assert session.open_session(path).get_session_options().intra_op_num_threads == host.usable_threads()
    options = session.open_session(path, SessionOptions(threads=1, spin="off")).get_session_options()
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_the_optimized_graph_is_what_runs(path: Path) -> None:
    assert [node.op_type for node in session.optimized_graph(path).graph] == ["Relu"]


def test_an_unknown_provider_is_named(path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'cpu'"):
        session.open_session(path, SessionOptions(provider="cpuu"))


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    text = TEXT.replace("Identity(a)", "Nonsense(a)")
    made = artifact.save(ir.from_proto(onnx.parser.parse_model(text)), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="cannot load it") as caught:
        session.open_session(made.path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=r"^model: onnxruntime .* cannot load it: .*memory failed") as caught:
        session.open_session(artifact.load(made.path))
    assert "model.onnx" not in str(caught.value)


def test_an_input_that_fails_is_shown(path: Path) -> None:
    with pytest.raises(ModelError, match=r"float32\[1, 3\]"):
        session.run(session.open_session(path), {"x": np.ones((1, 3), np.float32)})


def test_onnxruntime_reports_to_nobody_unless_the_user_wants_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    session.open_session(path)
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    session.open_session(path)
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_does_not_work_prints_nothing(
    path: Path, provider: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if session.provider_file(provider).NAME not in session.onnxruntime().get_available_providers():
        pytest.skip("not in this onnxruntime")
    try:
        session.open_session(path, SessionOptions(provider=provider))
    except UsageError as error:
        assert "does not work here" in str(error)
    assert capfd.readouterr() == ("", "")


def test_a_model_that_goes_meanwhile_is_the_users_to_look_for(path: Path) -> None:
    path.unlink()
    with pytest.raises(UsageError, match="is not there any more"):
        session.open_session(path)
