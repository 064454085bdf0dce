"""The step and the command: what is learned, what is kept, what is refused, and that a killed run resumes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import onnx_ir as ir
import onnx_ir.passes.common
import pytest
import torch

from onnxpress import artifact, graph, runner
from onnxpress.distillation import processes
from onnxpress.distillation.distill import distill
from onnxpress.distillation.loop import Training
from onnxpress.distillation.options import DistillOptions
from onnxpress.errors import DataError, ModelError, UsageError
from onnxpress.progress import Progress
from onnxpress.pruning import PruneOptions, prune
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.quantize import quantize
from onnxpress.recipe import Recipe
from onnxpress.session import SessionOptions, open_session, run
from onnxpress_calibration.dataset import Dataset

Array = np.ndarray[Any, np.dtype[Any]]


def with_weights(text: str, arrays: dict[str, Array]) -> ir.Model:
    """Read a graph whose weights are missing, and give it these."""
    model = ir.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> g {text}'))
    for index, node in enumerate(model.graph):
        node.name = f"n{index}"
    for name, array in arrays.items():
        value = next(v for node in model.graph for v in node.inputs if v is not None and v.name == name)
        value.const_value = ir.tensor(array, name=name)
        value.shape, value.dtype = ir.Shape(array.shape), value.const_value.dtype
        model.graph.register_initializer(value)
    onnx_ir.passes.common.ShapeInferencePass()(model)
    return model


def network(hidden: int = 8, *, classes: int = 3, inputs: int = 4, seed: int = 0) -> ir.Model:
    """x -> Conv -> Relu -> Conv -> Relu -> pooling -> Gemm, with random weights."""
    random = np.random.default_rng(seed)
    shapes = {"w1": (hidden, inputs, 3, 3), "b1": (hidden,), "w2": (8, hidden, 3, 3), "b2": (8,), "w3": (8, classes)}
    return with_weights(
        f"(float[N,{inputs},6,6] x) => (float[N,{classes}] y) {{ "
        "c = Conv <pads=[1,1,1,1]> (x, w1, b1) r = Relu(c) d = Conv <pads=[1,1,1,1]> (r, w2, b2) s = Relu(d) "
        "p = GlobalAveragePool(s) f = Flatten(p) y = Gemm(f, w3, b3) }",
        {
            name: (random.normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)
            for name, shape in (shapes | {"b3": (classes,)}).items()
        },
    )


def samples(count: int = 32, *, inputs: int = 4, labels: bool = False) -> Dataset:
    random = np.random.default_rng(1)
    arrays: dict[str, Array] = {"x": random.normal(size=(count, inputs, 6, 6)).astype(np.float32)}
    if labels:
        arrays["y"] = random.integers(0, 3, count)
    return Dataset(origin="normal", read=lambda: [arrays])


def answers(model: ir.Model) -> Array:
    data = next(iter(samples(64).read()))
    return run(open_session(model, SessionOptions(threads=1)), {"x": data["x"]})["y"]


def options(**values: object) -> DistillOptions:
    return DistillOptions.model_validate(
        {"steps": 60, "batch_size": 16, "learning_rate": 0.01, "augment": "none"} | values
    )


def weight(model: ir.Model, name: str) -> Array:
    array = graph.constant(model.graph.initializers[name])
    assert array is not None
    return array


def disturbed(model: ir.Model) -> ir.Model:
    """Return the model with noise on the weight of its second convolution."""
    copy = model.clone()
    value = copy.graph.initializers["w2"]
    noise = np.random.default_rng(2).normal(size=weight(copy, "w2").shape) * 0.1
    value.const_value = ir.tensor((weight(copy, "w2") + noise).astype(np.float32), name="w2")
    return copy


@pytest.mark.parametrize("loss", ["kl", "mse", "cosine"])
def test_a_disturbed_network_learns_to_answer_like_its_teacher_again(loss: str) -> None:
    teacher = network()
    student = disturbed(teacher)
    before = weight(student, "w2").copy()
    edit = distill(student, teacher, options(loss=loss), samples())
    wanted, error = answers(teacher), np.abs(answers(student) - answers(teacher)).max()
    assert np.abs(answers(edit.model) - wanted).max() < error / 2
    assert edit.facts["loss_after"] < edit.facts["loss_before"] / 4
    np.testing.assert_array_equal(weight(student, "w2"), before)  # the input is never changed


def test_a_smaller_network_keeps_its_shapes_and_names() -> None:
    student = network(4, seed=3)
    edit = distill(student, network(), options(), samples())
    shapes = {
        name: tuple(value.const_value.shape)
        for name, value in edit.model.graph.initializers.items()
        if value.const_value
    }
    assert shapes["w1"] == (4, 4, 3, 3)
    assert edit.facts["loss_after"] < edit.facts["loss_before"]
    assert edit.facts["features"] == 1  # of r, smaller, and s, alike


def test_inner_tensors_whose_channels_were_rescaled_are_not_compared() -> None:
    student = disturbed(network())
    factors = np.linspace(0.5, 2, 8, dtype=np.float32)
    for name, by in (("w1", factors[:, None, None, None]), ("b1", factors), ("w2", 1 / factors[None, :, None, None])):
        student.graph.initializers[name].const_value = ir.tensor((weight(student, name) * by), name=name)
    assert distill(disturbed(network()), network(), options(steps=1), samples()).facts["features"] == 2  # r and s
    assert distill(student, network(), options(steps=1), samples()).facts["features"] == 1


def test_zeros_stay_zeros() -> None:
    student = disturbed(network())
    array = weight(student, "w2").copy()
    array[np.abs(array) < 0.1] = 0
    student.graph.initializers["w2"].const_value = ir.tensor(array, name="w2")
    edit = distill(student, network(), options(), samples())
    np.testing.assert_array_equal(weight(edit.model, "w2") == 0, array == 0)
    assert not np.allclose(weight(edit.model, "w2"), array)


def test_a_pattern_of_zeros_stays_and_is_trained_around() -> None:
    student = prune(network(), PruneOptions(granularity="2:4")).model
    edit = distill(student, network(), options(), samples())
    assert edit.facts["loss_after"] < edit.facts["loss_before"] / 2
    for name in ("w1", "w2"):
        zeros = weight(student, name) == 0
        assert zeros.mean() >= 0.49
        np.testing.assert_array_equal(weight(edit.model, name) == 0, zeros)


@pytest.mark.parametrize(
    ("cell", "gates", "states", "more"), [("LSTM", 4, "h, c", ""), ("GRU", 3, "h", ", linear_before_reset=1")]
)
def test_a_recurrent_student_learns(cell: str, gates: int, states: str, more: str) -> None:
    shapes = {"w": (1, gates * 8, 4), "r": (1, gates * 8, 8), "b": (1, gates * 16), "v": (8, 3)}
    teacher, student = (
        with_weights(
            "(float[N,5,4] x) => (float[N,3] y) { t = Transpose <perm=[1,0,2]> (x) "
            f"all, {states} = {cell} <hidden_size=8{more}> (t, w, r, b) s = ReduceSum <keepdims=0> (h, axis) "
            "y = MatMul(s, v) }",
            {
                name: (np.random.default_rng(0).normal(size=shape) / 2 * scale).astype(np.float32)
                for name, shape in shapes.items()
            }
            | {"axis": np.array([0])},
        )
        for scale in (1, 0.7)
    )
    x = np.random.default_rng(1).normal(size=(64, 5, 4)).astype(np.float32)
    edit = distill(student, teacher, options(steps=80), Dataset(origin="normal", read=lambda: [{"x": x}]))
    assert edit.facts["loss_after"] < edit.facts["loss_before"] / 3
    assert not np.allclose(weight(edit.model, "r"), weight(student, "r"))


@pytest.mark.parametrize(("mode", "bits"), [("static", 8), ("static", 3), ("weight-only", 8), ("weight-only", 4)])
def test_quantized_students_stay_quantized_and_improve(mode: str, bits: int) -> None:
    teacher = network(32)
    student = quantize(teacher, QuantizeOptions(mode=mode, bits=bits), samples()).model  # type: ignore[arg-type]
    stored = {
        name: value.dtype for name, value in student.graph.initializers.items() if value.dtype != ir.DataType.FLOAT
    }
    edit = distill(student, teacher, options(learning_rate=0.003), samples())
    assert {name: edit.model.graph.initializers[name].dtype for name in stored} == stored
    assert edit.facts["loss_after"] <= edit.facts["loss_before"]
    if bits == 3:
        assert edit.facts["loss_after"] < edit.facts["loss_before"]
    for name, kind in stored.items():
        if kind == ir.DataType.INT8 and bits == 3:
            assert np.abs(weight(edit.model, name)).max() <= 3


def test_one_seed_gives_one_result_and_another_seed_another() -> None:
    made = [
        weight(distill(disturbed(network()), network(), options(seed=seed, augment=None), samples()).model, "w2")
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


def test_torch_is_left_as_it_was() -> None:
    def state() -> tuple[bool, bool, int]:
        filled = bool(torch.utils.deterministic.fill_uninitialized_memory)
        return torch.are_deterministic_algorithms_enabled(), filled, torch.get_num_threads()

    before, drawn = state(), torch.get_rng_state()
    with processes.joined():
        assert state()[:2] == (not torch.cuda.is_available(), False)
        torch.rand(1)
    assert state() == before
    assert torch.equal(torch.get_rng_state(), drawn)


class KilledError(Exception):
    pass


def test_a_killed_run_resumes_with_the_same_bits(tmp_path: Path) -> None:
    teacher, student, data = network(), disturbed(network()), samples()
    whole = distill(student, teacher, options(), data, checkpoint=tmp_path / "whole")
    done = 0

    def die(per_mille: int) -> None:
        nonlocal done
        done += per_mille
        if done > 500:
            raise KilledError

    with pytest.raises(KilledError):
        distill(student, teacher, options(), data, checkpoint=tmp_path / "c", advance=die)
    assert (tmp_path / "c").is_file()
    resumed = distill(student, teacher, options(), data, checkpoint=tmp_path / "c", resume=True)
    np.testing.assert_array_equal(weight(resumed.model, "w2"), weight(whole.model, "w2"))
    assert resumed.facts["history"] == whole.facts["history"]
    assert {file.name for file in tmp_path.iterdir()} == {"c", "whole"}  # for whoever publishes the result to remove


def test_an_interrupted_command_says_how_to_go_on(
    tmp_path: Path, compress: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    student, teacher, data = saved(tmp_path)
    save = Training._save

    def interrupted(*arguments: Any) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "_save", interrupted)
    words = ["distill", student, "--teacher", teacher, "--data", data, "-o", tmp_path / "o.onnx", "--steps", 40]
    ended = compress(*words)
    assert ended.code == 130 and not (tmp_path / "o.onnx").exists()
    assert f"{tmp_path / 'o.onnx.checkpoint'}: give the same command with --resume" in ended.err
    monkeypatch.undo()
    assert compress(*words, "--resume").code == 0


def test_a_training_that_improves_nothing_says_so(tmp_path: Path, compress: Callable[..., Any]) -> None:
    _, teacher, data = saved(tmp_path)
    words = ["--teacher", teacher, "--data", data, "--steps", 3, "--learning-rate", 10, "--augment", "none"]
    ended = compress("distill", teacher, *words, "-o", tmp_path / "o.onnx")  # nothing is nearer to it than itself
    assert ended.code == 0, ended.err
    assert "nothing improved: the weights in" in ended.out


def test_labels_take_part_when_asked_for() -> None:
    edit = distill(network(seed=5), network(), options(labels=1.0, features=0, held_out=0), samples(labels=True))
    losses = [entry["loss"] for entry in edit.facts["history"][1:]]
    assert losses[-1] < losses[0]
    with pytest.raises(DataError, match="no labels"):
        distill(network(seed=5), network(), options(labels=1.0), samples())


def test_the_users_augmentation_is_called(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def fn(batch, random):\n    return {name: value * 0 for name, value in batch.items()}\n"
    )
    edit = distill(disturbed(network()), network(), options(augment=f"{tmp_path}/mine.py:fn"), samples())
    plain = distill(disturbed(network()), network(), options(), samples())
    assert not np.array_equal(weight(edit.model, "b3"), weight(plain.model, "b3"))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match=r"teacher: output 'y' is \?x5, the student's 'y' \?x3"):
        distill(network(), network(classes=5), options(), samples())
    with pytest.raises(UsageError, match=r"teacher: its input 'x' is float32 \?x2x6x6"):
        distill(network(), network(inputs=2), options(), samples())
    with pytest.raises(DataError, match="shape 1x2x6x6"):
        distill(network(), network(), options(), samples(inputs=2))
    with pytest.raises(UsageError, match="augment mixup"):
        distill(network(), network(), options(augment="mixup", labels=1.0), samples(labels=True))
    with pytest.raises(ModelError, match="Lower learning_rate"):
        distill(network(), network(seed=1), options(learning_rate=1e30), samples())


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"epochs": 1, "steps": 1}, "both say how long"),
        ({"augment": "flipp"}, "Did you mean 'flip'"),
        ({"augment": "none,flip"}, "stands alone"),
        ({"held_out": "100%"}, "less than 1"),
        ({"budget": "ten"}, "no number with a unit"),
    ],
)
def test_wrong_options(values: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        DistillOptions.model_validate(values)


def saved(folder: Path) -> tuple[Path, Path, Path]:
    """Write student, teacher and data for the command line."""
    artifact.save(disturbed(network()), folder / "student.onnx")
    artifact.save(network(), folder / "teacher.onnx")
    np.savez(folder / "data.npz", **next(iter(samples().read())))
    return folder / "student.onnx", folder / "teacher.onnx", folder / "data.npz"


def test_command(tmp_path: Path, compress: Callable[..., Any]) -> None:
    student, teacher, data = saved(tmp_path)
    out, result = tmp_path / "out.onnx", tmp_path / "out.json"
    words = ["distill", student, "--teacher", teacher, "--data", data, "-o", out, "--steps", "20", "--json", result]
    ended = compress(*words)
    assert ended.code == 0, ended.err
    assert "20 updates" in ended.out
    assert artifact.read(out).lineage[-1]["step"] == "distill"
    assert json.loads(result.read_text())["facts"]["updates"] == 20
    assert compress(*words).code == 2  # nothing is overwritten
    assert (
        compress("distill", student, "--teacher", student, "--data", "nothing.npz", "-o", tmp_path / "b.onnx").code == 3
    )


def test_the_command_says_in_one_line_what_does_not_fit(tmp_path: Path, compress: Callable[..., Any]) -> None:
    student, teacher, data = saved(tmp_path)
    artifact.save(network(classes=5), tmp_path / "five.onnx")
    np.savez(tmp_path / "narrow.npz", **next(iter(samples(inputs=2).read())))
    np.savez(tmp_path / "one.npz", x=np.zeros((1, 4, 6, 6), np.float32))
    out = tmp_path / "out.onnx"
    for chosen, samples_file, more, code, message in [
        (tmp_path / "five.onnx", data, [], 2, "teacher: output 'y' is ?x5, the student's 'y' ?x3"),
        (tmp_path / "none.onnx", data, [], 2, "none.onnx: no such file"),
        (data, data, [], 3, "not an ONNX file"),
        (teacher, tmp_path / "narrow.npz", [], 3, "shape 1x2x6x6, the model expects ?x4x6x6"),
        (teacher, tmp_path / "one.npz", [], 3, "too few samples to hold some out"),
        (teacher, data, ["--labels", "1"], 3, "has no labels `y`"),
        (teacher, data, ["--held-out", "120%"], 2, "held_out"),
    ]:
        ended = compress("distill", student, "--teacher", chosen, "--data", samples_file, "-o", out, *more)
        assert (ended.code, len(ended.err.splitlines())) == (code, 1), ended.err
        assert message in ended.err
        assert not out.exists()
    assert not list(tmp_path.glob("*checkpoint*"))


def test_samples_that_repair_was_fitted_to_do_not_judge_unsaid(tmp_path: Path, compress: Callable[..., Any]) -> None:
    _, teacher, data = saved(tmp_path)
    for name, more, warned in (("fitted", [], True), ("apart", ["--held-out", "10%"], False)):
        words = [
            "--amount",
            "50%",
            "--round-to",
            "1",
            "--repair",
            "--calibration",
            data,
            "-o",
            tmp_path / f"{name}.onnx",
        ]
        assert compress("prune", teacher, *words, *more).code == 0
        words = ["--teacher", teacher, "--data", data, "-o", tmp_path / f"{name}2.onnx", "--steps", "1"]
        ended = compress("distill", tmp_path / f"{name}.onnx", *words)
        assert ended.code == 0, ended.err
        assert ("prune with --held-out" in ended.out) is warned


def test_a_model_of_fixed_batch_gets_whole_batches() -> None:
    teacher = network()
    for value in (*teacher.graph.inputs, *teacher.graph.outputs):
        assert value.shape is not None
        value.shape = ir.Shape([4, *value.shape[1:]])
    student = disturbed(teacher)
    edit = distill(student, teacher, options(batch_size=10, held_out="20%"), samples(40))
    assert edit.facts["loss_after"] < edit.facts["loss_before"] / 2
    assert edit.facts["history"][-1]["update"] == 60
    with pytest.raises(DataError, match="sample 40"):
        distill(student, teacher, options(), samples(42))


def test_recipe_step(tmp_path: Path) -> None:
    _, teacher, data = saved(tmp_path)
    steps = "[{prune: {amount: 50%, round_to: 1}}, {distill: {steps: 20, augment: none}}]"
    (tmp_path / "r.yaml").write_text(
        f"schema: onnxpress.recipe/1\nmodel: {{source: {teacher.name}}}\ndata: {{calibration: {data.name}}}\n"
        f"variants: {{small: {steps}}}\n"
    )
    runner.run(Recipe.load(tmp_path / "r.yaml"), tmp_path / "out", Progress(quiet=True))
    assert [step["step"] for step in artifact.read(tmp_path / "out/small/model.onnx").lineage[-2:]] == [
        "prune",
        "distill",
    ]


@pytest.mark.slow
def test_killed_at_random_moments_a_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    student, teacher, data = saved(tmp_path)
    command = [sys.executable, "-m", "onnxpress", "distill", str(student), "--teacher", str(teacher), "--data"]
    command += [str(data), "--steps", "600", "--augment", "crop,mixup", "--patience", "20", "--quiet", "-o"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([*command, str(tmp_path / "whole.onnx")], check=True, env=environment)
    checkpoint, moments = tmp_path / "killed.onnx.checkpoint", random.Random(0)  # noqa: S311
    broken = [*command, str(tmp_path / "killed.onnx"), "--resume"]
    for _ in range(4):
        process = subprocess.Popen(broken, env=environment)
        for _ in range(moments.randint(1, 4)):  # so many more checkpoints, and a moment more
            before = changed(checkpoint)
            while process.poll() is None and changed(checkpoint) == before:
                time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.05))
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert checkpoint.is_file()
    assert not (tmp_path / "killed.onnx").exists()
    subprocess.run(broken, check=True, env=environment)
    found = [artifact.load(tmp_path / f"{name}.onnx") for name in ("whole", "killed")]
    for name in ("w1", "b1", "w2", "b2", "w3", "b3"):
        np.testing.assert_array_equal(weight(found[1], name), weight(found[0], name))
    assert not np.array_equal(weight(found[0], "w2"), weight(artifact.load(student), "w2"))
    assert {path.name for path in tmp_path.iterdir()} == {
        "student.onnx", "teacher.onnx", "data.npz", "whole.onnx", "killed.onnx",
    }  # fmt: skip


def changed(path: Path) -> int:
    """Return when a file was last replaced; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(tmp_path: Path, compress: Callable[..., Any]) -> None:
    student, teacher, data = saved(tmp_path)
    words = ["distill", student, "--teacher", teacher, "--data", data, "--steps", "20", "--batch-size", "10"]
    words += ["--augment", "crop,mixup", "--learning-rate", "0.0005", "--quiet"]
    assert compress(*words, "-o", tmp_path / "one.onnx", "--json", tmp_path / "one.json").code == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    ended = subprocess.run(
        [*launcher, "onnxpress", *words, "-o", tmp_path / "two.onnx", "--json", "-"],
        check=True, capture_output=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, timeout=600,
    )  # fmt: skip
    assert b"onnxpress" not in ended.stderr and b"reducer" not in ended.stderr, ended.stderr.decode()
    documents = json.loads((tmp_path / "one.json").read_text()), json.loads(ended.stdout)  # one process has spoken
    one, two = (
        [[entry["loss"] or 0, entry["held_out"]] for entry in document["facts"]["history"]] for document in documents
    )
    np.testing.assert_allclose(two, one, rtol=1e-4)
    assert one[-1][1] < one[0][1]
    found = [
        [weight(artifact.load(tmp_path / name), initializer) for initializer in ("w1", "w2", "w3")]
        for name in ("one.onnx", "two.onnx")
    ]
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(theirs, mine, atol=1e-5)
