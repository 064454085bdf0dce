import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import onnxpress_models
from onnxpress_models import train

NAMES = onnxpress_models.names()


def test_names_are_the_files() -> None:
    assert NAMES == ["digits_cnn", "digits_lstm", "digits_mlp", "digits_resnet", "unicode_bert", "unicode_textcnn"]


def test_splits() -> None:
    assert onnxpress_models.dataset_splits() == [
        f"{name}/{split}" for name in ("digits", "unicode_names") for split in ("calibration", "test", "train")
    ]
    for path in onnxpress_models.dataset_splits():
        name, split = path.split("/")
        assert onnxpress_models.dataset_function(name, split).__name__ == split


@pytest.mark.parametrize("name", ["digits_resnett", "", "train", "os"])
def test_unknown_model_lists_what_exists(name: str) -> None:
    with pytest.raises(LookupError, match=r"There are: digits_cnn, .*digits_resnet") as caught:
        onnxpress_models.load(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(("name", "split"), [("digits", "tset"), ("digit", "test"), ("digits", "embed"), ("", "")])
def test_unknown_data_lists_what_exists(name: str, split: str) -> None:
    with pytest.raises(LookupError, match=rf"'{name}/{split}'\. There are: digits/calibration, digits/test"):
        onnxpress_models.dataset_function(name, split)


@pytest.mark.parametrize("name", NAMES)
def test_weights_reach_their_accuracy(name: str) -> None:
    model = onnxpress_models.model(name)
    network = onnxpress_models.load(name)
    assert not network.training
    data = onnxpress_models.dataset_function(model.DATASET, "test")()
    assert train.accuracy(name, network, data) == pytest.approx(model.ACCURACY, abs=0.1)
    assert 85 < model.ACCURACY < 100


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_small_and_float32(name: str) -> None:
    torch = pytest.importorskip("torch")
    assert onnxpress_models.weights_file(name).stat().st_size <= 2_000_000
    assert {value.dtype for value in onnxpress_models.load(name).parameters()} == {torch.float32}


@pytest.mark.parametrize("name", NAMES)
def test_inputs_match_the_data(name: str) -> None:
    """Words are dynamic axes, numbers are fixed; any batch gives the same answers as one sample at a time."""
    torch = pytest.importorskip("torch")
    model = onnxpress_models.model(name)
    data = onnxpress_models.dataset_function(model.DATASET, "test")()
    for key, text in model.INPUTS.items():
        dtype, shape = text.split(":")
        batch, *sizes = shape.split("x")
        assert (data[key].dtype, list(data[key].shape[1:])) == (np.dtype(dtype), [int(size) for size in sizes])
        assert batch == "batch"
    network = onnxpress_models.load(name)
    values = [torch.from_numpy(data[key][:3]) for key in model.INPUTS]
    with torch.inference_mode():
        together = network(*values)
        alone = torch.cat([network(*(value[row : row + 1] for value in values)) for row in range(3)])
    assert together.shape == (3, 10)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert len(model.OUTPUTS) == 1


def test_padding_does_not_matter_to_the_encoder() -> None:
    torch = pytest.importorskip("torch")
    network = onnxpress_models.load("unicode_bert")
    data = onnxpress_models.dataset_function("unicode_names", "test")()
    ids, mask = torch.from_numpy(data["input_ids"][:8]), torch.from_numpy(data["attention_mask"][:8])
    with torch.inference_mode():
        torch.testing.assert_close(network(ids, mask), network(ids + 7 * (1 - mask), mask))


def few(name: str, samples: int = 40) -> dict[str, np.ndarray]:
    data = onnxpress_models.dataset_function(onnxpress_models.model(name).DATASET, "train")()
    return {key: value[:samples] for key, value in data.items()}


@pytest.mark.parametrize("name", NAMES)
def test_training_is_deterministic(name: str) -> None:
    torch = pytest.importorskip("torch")
    state = torch.get_rng_state()
    first, again, other = (train.fit(name, few(name), seed=seed, epochs=1) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.state_dict().keys() == onnxpress_models.load(name).state_dict().keys()
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    assert not all(torch.equal(value, other.state_dict()[key]) for key, value in first.state_dict().items())


def test_training_learns() -> None:
    data = few("digits_mlp", 200)
    before, after = (
        train.accuracy("digits_mlp", train.fit("digits_mlp", data, seed=0, epochs=n), data) for n in (1, 20)
    )
    assert before < 90 < after


def python(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(onnxpress_models.__file__).parents[1])}
    return subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=True)


@pytest.mark.slow
def test_trained_again_it_is_as_good(tmp_path: Path) -> None:
    load_file = pytest.importorskip("safetensors.torch").load_file
    output = tmp_path / "weights.safetensors"
    done = python("-m", "onnxpress_models.train", "digits_mlp", "--output", str(output))
    assert [file.name for file in tmp_path.iterdir()] == [output.name]
    network = onnxpress_models.model("digits_mlp").build()
    network.load_state_dict(load_file(output))
    reached = train.accuracy("digits_mlp", network.eval(), onnxpress_models.dataset_function("digits", "test")())
    assert f"top-1 {reached:.2f} %" in done.stdout
    assert reached == pytest.approx(onnxpress_models.model("digits_mlp").ACCURACY, abs=1)


def test_a_leaf_that_imports_nothing_heavy() -> None:
    script = """
import sys, onnxpress_models, onnxpress_models.train
for name in onnxpress_models.names(): onnxpress_models.model(name)
for path in onnxpress_models.dataset_splits(): onnxpress_models.dataset_function(*path.split("/"))()
print(sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:])))
"""
    unwanted = ("torch", "safetensors", "sklearn", "onnx", "onnxruntime", "onnxpress", "onnxpress_calibration")
    assert python("-c", script, *unwanted).stdout == "[]\n"


@pytest.mark.parametrize("name", NAMES)
def test_recipe(name: str) -> None:
    recipe = yaml.safe_load(onnxpress_models.recipe_file(name).read_text())
    model = onnxpress_models.model(name)
    assert recipe["schema"] == "onnxpress.recipe/1"
    assert recipe["model"]["source"] == f"zoo:{name}"
    assert recipe["data"]["evaluation"] == f"zoo:{model.DATASET}/test"
    assert recipe["data"]["calibration"] == f"zoo:{model.DATASET}/calibration"
    assert onnxpress_models.recipe_file(name).with_name(recipe["gate"]).is_file()
