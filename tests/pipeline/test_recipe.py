"""Recipes: read whole, and every mistake in one line with its place."""

from pathlib import Path

import pytest

from onnxpress.errors import UsageError
from onnxpress.quantization import QuantizeOptions
from onnxpress.recipe import Recipe

GOOD = """schema: onnxpress.recipe/1
model: {source: zoo:digits_resnet, opset: 21}
data: {calibration: samples.npz, evaluation: zoo:digits/test, metric: top1}
variants:
  int8-dynamic: [{quantize: {mode: dynamic}}]
  int8: [{quantize: {mode: static, calibrator: mse}}]
  pruned: [{prune: {method: l2, target: {macs: 0.7}}}, {quantize: {}}]
bench: {providers: [cpu], scenarios: [single]}
cost: {instances: [gcp/c3-standard-4/us-central1], inferences_per_month: 100M, utilisation: 0.5}
gate: gate.yaml
"""


def load(folder: Path, text: str) -> Recipe:
    (folder / "r.yaml").write_text(text)
    return Recipe.load(folder / "r.yaml")


def test_a_recipe_is_read_whole(tmp_path: Path) -> None:
    recipe = load(tmp_path, GOOD)
    assert list(recipe.variants) == ["int8-dynamic", "int8", "pruned"]
    assert [step.name for step in recipe.variants["pruned"]] == ["prune", "quantize"]
    options = recipe.variants["int8"][0].options
    assert isinstance(options, QuantizeOptions) and options.calibrator == "mse"
    assert recipe.model.opset == 21


def test_paths_start_at_the_recipe_and_variables_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS", "/somewhere")
    text = GOOD.replace("zoo:digits_resnet", '"${MODELS}/a.onnx"').replace("zoo:digits/test", "load.py:test")
    recipe = load(tmp_path, text)
    assert recipe.model.source == "/somewhere/a.onnx"
    assert recipe.data.calibration == str(tmp_path / "samples.npz")
    assert recipe.data.evaluation == f"{tmp_path}/load.py:test"
    assert recipe.gate == str(tmp_path / "gate.yaml")
    assert load(tmp_path, GOOD.replace("zoo:digits_resnet", "my.net:build")).model.source == "my.net:build"


def test_preprocessing_is_keys_or_a_file_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "images.yaml").write_text("size: 24\n")
    inline = load(tmp_path, GOOD.replace("metric: top1", "metric: top1, preprocessing: {size: 32}"))
    assert inline.data.preprocessing is not None and inline.data.preprocessing.size == (32, 32)
    named = load(tmp_path, GOOD.replace("metric: top1", "metric: top1, preprocessing: images.yaml"))
    assert named.data.preprocessing is not None and named.data.preprocessing.size == (24, 24)
    with pytest.raises(UsageError, match=r"r\.yaml, line 3: .*none\.yaml: cannot be read"):
        load(tmp_path, GOOD.replace("metric: top1", "metric: top1, preprocessing: none.yaml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "calibrator: mse",
            "calibratr: mse",
            r"line 6: unknown key 'variants.int8.0.quantize.calibratr'. Did you mean 'calibrator'",
        ),
        ("{quantize: {}}", "{quantize: 0}", "valid dictionary"),
        ("calibrator: mse", "'a[b]': 1", r"line 6: unknown key 'variants.int8.0.quantize.a\[b\]'"),
        ("calibrator: mse", "calibrator: mze", r"line 6: .*Did you mean 'mse'"),
        ("mode: dynamic", "mode: dynamical", r"line 5: .*mode.*(given: 'dynamical')"),
        ("{quantize: {}}", "{quantise: {}}", r"line 7: .*unknown step 'quantise'. Did you mean 'quantize'"),
        ("[{quantize: {mode: dynamic}}]", "[]", r"line 5: .*int8-dynamic"),
        ("[{quantize: {mode: dynamic}}]", "[quantize]", r"a step is one name with its options"),
        ("metric: top1", "metrik: top1", r"line 3: unknown key 'data.metrik'. Did you mean 'metric'"),
        ("variants:", "variant:", r"line 4: unknown key 'variant'. Did you mean 'variants'"),
        ("gate: gate.yaml", "gates: gate.yaml", r"line 10: unknown key 'gates'. Did you mean 'gate'"),
        ("schema: onnxpress.recipe/1", "schema: onnxpress.recipe/9", r"line 1: 'schema'|line 1: schema"),
        ("model: {source: zoo:digits_resnet, opset: 21}", "model: {opset: 21}", r"line 2: 'model.source' is missing"),
        ("target: {macs: 0.7}", "target: {macs: 0.7}, amount: 30%", r"line 7: "),
        ("target: {macs: 0.7}", "target: {mac: 0.7}", r"line 7: .*\.target\.mac: Input should be 'macs'"),
        ("calibration: samples.npz, ", "", r"variant 'int8' needs data.calibration"),
        (
            "calibrator: mse",
            "backend: neural-compressor",
            r"variant 'int8': backend neural-compressor quantizes PyTorch",
        ),
        ("evaluation: zoo:digits/test, ", "", r"data.metric needs data.evaluation"),
        ("  int8: [", "  float: [", r"variant 'float': the name is always there"),
        ("  int8: [", '  "../up": [', r"variant '../up': the name must be"),
        ("samples.npz", "$NO_SUCH_VARIABLE/samples.npz", r"environment variable NO_SUCH_VARIABLE is not set"),
        ("model:", "model: [", r"not YAML"),
        ("scenarios: [single]", "scenarios: [singel]", r"line 8: .*Did you mean 'single'"),
    ],
)
def test_mistakes_are_one_line_with_their_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(UsageError, match=message) as caught:
        load(tmp_path, GOOD.replace(old, new))
    assert "\n" not in str(caught.value) and "r.yaml" in str(caught.value)


def test_an_empty_and_a_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is empty"):
        load(tmp_path, "")
    with pytest.raises(UsageError, match="is no mapping"):
        load(tmp_path, "- model\n- data\n")
    with pytest.raises(UsageError, match="cannot be read"):
        Recipe.load(tmp_path / "none.yaml")


def test_pruning_leaves_the_samples_alone_by_which_distillation_judges(tmp_path: Path) -> None:
    steps = [
        "{prune: {amount: 30%, repair: true}}, {distill: {held_out: 20%}}",
        "{prune: {amount: 30%, held_out: 0}}, {distill: {}}",
        "{prune: {amount: 30%}}, {quantize: {mode: fp16}}",
    ]
    variants = "".join(f"  v{number}: [{text}]\n" for number, text in enumerate(steps))
    path = tmp_path / "r.yaml"
    path.write_text(
        "schema: onnxpress.recipe/1\nmodel: {source: m.onnx}\ndata: {calibration: c.npz}\nvariants:\n" + variants
    )
    found = [variant[0].options for variant in Recipe.load(path).variants.values()]
    assert [options.model_dump()["held_out"] for options in found] == [0.2, 0, None]
