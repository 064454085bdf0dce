"""Sequences, maps and optional values, inside models and as outputs, and boxes whose number depends on the data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxpress import artifact, maps
from onnxpress.session import open_session, run

HEAD = '<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3]>'
TEXTS = {
    "numbered classes": """g (float[n,16] x) => (int64[n] label, seq(map(int64, float)) p) {
        a = MatMul(x, w1) h = Relu(a) l = MatMul(h, w2) s = Softmax(l) label = ArgMax<axis=1, keepdims=0>(s)
        p = ai.onnx.ml.ZipMap<classlabels_int64s=[0,1,2,3]>(s) }""",
    "named classes": """g (float[n,16] x) => (string[n] label, seq(map(string, float)) p) {
        a = MatMul(x, w1) h = Relu(a) l = MatMul(h, w2) s = Softmax(l) k = ArgMax<axis=1, keepdims=0>(s)
        label = ai.onnx.ml.LabelEncoder<keys_int64s=[0,1,2,3], values_strings=["a","b","c","d"]>(k)
        p = ai.onnx.ml.ZipMap<classlabels_strings=["a","b","c","d"]>(s) }""",
    "sequence": """g (float[n,16] x) => (seq(float[n,k]) s) {
        a = MatMul(x, w1) h = Relu(a) b = MatMul(h, w3) s = SplitToSequence<axis=1>(b, sixteen) }""",
    "sequence inside": """g (float[n,16] x) => (float[n,32] y) {
        a = MatMul(x, w1) h = Relu(a) b = MatMul(h, w3) e = SequenceEmpty<dtype=1>() f = SequenceInsert(e, a)
        s = SequenceInsert(f, b) y = SequenceAt(s, one) }""",
    "taken apart and joined": """g (float[n,16] x) => (float[n,4] y) {
        a = MatMul(x, w1) s = SplitToSequence<axis=1>(a, sixteen) c = ConcatFromSequence<axis=1>(s) y = MatMul(c, w2)
    }""",
    "sequence in a loop": """g (float[n,16] x) => (float[m,k] y) {
        a = MatMul(x, w1) e = SequenceEmpty<dtype=1>() s = Loop(three, true, e) <body = b
        (int64 i, bool c, seq(float[n,32]) si) => (bool co, seq(float[n,32]) so) {
            co = Identity(c) so = SequenceInsert(si, a) }> y = ConcatFromSequence<axis=1>(s) }""",
    "optional inside": """g (float[n,16] x) => (float[n,32] y) {
        a = MatMul(x, w1) o = Optional(a) e = OptionalGetElement(o) y = MatMul(e, w3) }""",
    "optional": "g (float[n,16] x) => (optional(float[n,32]) y) { a = MatMul(x, w1) y = Optional(a) }",
    "boxes": """g (float[1,16] x) => (float[k,4] boxes, float[k] scores) {
        a = MatMul(x, w1) h = Relu(a) l = MatMul(h, w4) b = Reshape(l, fours) s = Sigmoid(b)
        first, rest = Split<axis=2>(s, parts) t = Transpose<perm=[0,2,1]>(first)
        i = NonMaxSuppression(b, t, most, half, limit) j = Slice(i, two, end, one_) q = Squeeze(j, one_)
        c = Squeeze(b, zero_) boxes = Gather(c, q) f = Squeeze(t, both) scores = Gather(f, q) }""",
}
ARRAYS = {
    "sixteen": np.array(16),
    "one": np.array(1),
    "three": np.array(3),
    "true": np.array(True),
    "fours": np.array([1, 8, 4]),
    "parts": np.array([1, 3]),
    "most": np.array([5]),
    "half": np.array([0.5], np.float32),
    "limit": np.array([0.5], np.float32),
    **{name: np.array([value]) for name, value in {"two": 2, "end": 3, "one_": 1, "zero_": 0}.items()},
    "both": np.array([0, 1]),
}


def write(kind: str, path: Path, *, limit: float = 0.5) -> Path:
    random = np.random.default_rng(0)
    text, maps_of = TEXTS[kind], {}
    for described, key in (("seq(map(int64, float)) p", 7), ("seq(map(string, float)) p", 8)):
        if described in text:  # onnx's text has no types of maps
            text, maps_of = text.replace(described, "float p"), {"p": key}
    model = onnx.parser.parse_model(HEAD + text)
    for value in model.graph.output:
        if value.name in maps_of:
            value.ClearField("type")
    maps.restore(model)
    shapes = {"w1": (16, 32), "w2": (32, 4), "w3": (32, 32), "w4": (32, 32)}
    arrays = {name: random.normal(size=shape).astype(np.float32) / 3 for name, shape in shapes.items()} | ARRAYS
    arrays["limit"] = np.array([limit], np.float32)
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(arrays[name], name) for name in arrays if name in read)
    path.write_bytes(model.SerializeToString())
    return path


X = np.random.default_rng(1).normal(size=(40, 16)).astype(np.float32)


@pytest.fixture
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "d.npz", x=X)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize("kind", TEXTS)
def test_every_command_takes_it(compress: Callable[..., Any], kind: str) -> None:
    model = write(kind, Path("m.onnx"))
    before = run(open_session(model), {"x": X[:1]})
    for command in (
        "inspect m.onnx",
        "export m.onnx -o e.onnx",
        "quantize m.onnx -o s.onnx --calibration d.npz --accept-loss",
        "quantize m.onnx -o b.onnx --calibration d.npz --accept-loss --backend onnxruntime",
        "quantize m.onnx -o y.onnx --mode dynamic",
        "quantize m.onnx -o h.onnx --mode fp16 --calibration d.npz --accept-loss",
        "profile m.onnx --data d.npz -o m.profile",
        "evaluate m.onnx s.onnx h.onnx --data d.npz",
    ):
        ended = compress(*command.split())
        assert ended.code == 0, f"{command}: {ended.err}"
    for made in ("e.onnx", "s.onnx", "h.onnx"):
        after = run(open_session(Path(made)), {"x": X[:1]})
        assert {name: type(value) for name, value in after.items()} == {name: type(v) for name, v in before.items()}
    ended = compress(
        *["prune", "m.onnx", "-o", "p.onnx", "--amount", "25%", "--round-to", "8", "--calibration", "d.npz"]
    )
    assert ended.code == 0 or "nothing can be removed" in ended.err, ended.err


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize("kind", ["named classes", "sequence"])
def test_it_can_be_timed(compress: Callable[..., Any], kind: str) -> None:
    write(kind, Path("m.onnx"))
    ended = compress(*["bench", "m.onnx", "--inputs", "d.npz", "--budget", "1s"])
    assert ended.code in (0, 4) and "error" not in ended.err, ended.err


@pytest.mark.parametrize("kind", ["numbered classes", "named classes"])
def test_maps_have_their_type_again_when_they_are_written(tmp_path: Path, kind: str) -> None:
    path = write(kind, tmp_path / "m.onnx")
    made = artifact.save(artifact.load(path), tmp_path / "n.onnx").path
    assert onnx.load(made).graph.output == onnx.load(path).graph.output
    onnx.checker.check_model(onnx.load(made))


@pytest.mark.usefixtures("_folder")
def test_a_detector_that_finds_nothing_proves_nothing(compress: Callable[..., Any]) -> None:
    write("boxes", Path("m.onnx"), limit=2.0)
    ended = compress(*["evaluate", "m.onnx", "m.onnx", "--data", "d.npz"])
    assert ended.code == 0 and "not measured" in ended.out
    ended = compress(*["quantize", "m.onnx", "-o", "q.onnx", "--calibration", "d.npz"])
    assert ended.code == 4 and "nothing can be compared" in ended.err and "--metric module:fn" in ended.err
    assert not Path("q.onnx").exists()
    assert compress(*["quantize", "m.onnx", "-o", "q.onnx", "--calibration", "d.npz", "--accept-loss"]).code == 0


@pytest.mark.usefixtures("_folder")
def test_outputs_of_other_names_are_one_line_or_a_users_metric(compress: Callable[..., Any]) -> None:
    write("sequence inside", Path("m.onnx"))
    other = onnx.load("m.onnx")
    other.graph.node[-1].output[0] = other.graph.output[0].name = "z"
    onnx.save(other, "n.onnx")
    ended = compress(*["evaluate", "m.onnx", "n.onnx", "--data", "d.npz"])
    assert ended.code == 3 and "output 'y': 'n' has none of this name, only ['z']" in ended.err
    Path("own.py").write_text("def count(session):\n    return float(len(session.get_outputs()))\n")
    assert compress(*["evaluate", "m.onnx", "n.onnx", "--data", "d.npz", "--metric", "own.py:count"]).code == 0


@pytest.mark.usefixtures("_folder")
def test_the_gate_does_not_advise_to_measure_what_boxes_do_not_have(compress: Callable[..., Any]) -> None:
    write("boxes", Path("m.onnx"))
    write("boxes", Path("n.onnx"), limit=0.6)
    policy = "schema: onnxpress.policy/1\nrules:\n  fidelity.agreement: [error, {min: 90%}]\n"
    Path("compress-gate.yaml").write_text(policy)
    ended = compress(*["gate", "n.onnx", "--baseline", "m.onnx", "--data", "d.npz"])
    assert ended.code == 4 and "boxes are no class scores" in " ".join(ended.out.split()), ended
