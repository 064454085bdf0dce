"""What a run would do: nothing is written, and what is done, shared or not known is said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onnxpress import plan, runner
from onnxpress.errors import UsageError
from onnxpress.export.export import export
from onnxpress.export.options import ExportOptions
from onnxpress.progress import Progress
from onnxpress.recipe import Recipe

RECIPE = """schema: onnxpress.recipe/1
model: {source: net.onnx}
variants:
  dynamic: [{quantize: {mode: dynamic}}]
  small: [{prune: {method: l2, amount: 25%, round_to: 1}}]
  small-int8: [{prune: {method: l2, amount: 25%, round_to: 1}}, {quantize: {mode: weight-only}}]
cost: {instances: [box], price: {box: "1"}, one_off: {small: "4"}}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from onnxpress import artifact

    path = tmp_path_factory.mktemp("model") / "net.onnx"
    return artifact.save(export("zoo:digits_cnn", ExportOptions(verify=False)).model, path).path


@pytest.fixture
def recipe(tmp_path: Path, model: Path) -> Recipe:
    (tmp_path / "net.onnx").write_bytes(model.read_bytes())
    (tmp_path / "r.yaml").write_text(RECIPE)
    return Recipe.load(tmp_path / "r.yaml")


def states(found: plan.Plan) -> list[tuple[str, str, bool, bool]]:
    return [(step.variant, step.step, step.done, step.seconds is not None) for step in found.steps]


def test_before_and_after_a_run(recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    before = plan.plan(recipe, folder)
    assert not folder.exists()
    assert states(before) == [
        ("float", "export", False, False),
        ("dynamic", "quantize dynamic", False, False),
        ("small", "prune l2", False, False),
        ("small-int8", "prune l2", True, False),  # the one of the variant before
        ("small-int8", "quantize weight-only", False, False),
    ]
    assert before.seconds is None and "time: not known" in plan.render(before)
    runner.run(recipe, folder, Progress(quiet=True))
    after = plan.plan(recipe, folder)
    assert all(step.done for step in after.steps) and after.seconds == 0
    (tmp_path / "r.yaml").write_text(RECIPE.replace("amount: 25%", "amount: 50%"))
    changed = plan.plan(Recipe.load(tmp_path / "r.yaml"), folder)
    assert [step.done for step in changed.steps] == [True, True, False, True, False]
    took = [step.seconds for step in changed.steps if not step.done]
    assert changed.seconds == sum(each for each in took if each is not None) and None not in took
    assert plan.document(changed)["steps"][2]["variant"] == "small"


def test_one_variant(recipe: Recipe, tmp_path: Path) -> None:
    only = recipe.only(["dynamic"])
    assert list(only.variants) == ["dynamic"] and only.cost is not None and not only.cost.one_off
    assert recipe.only([]) is recipe
    report = runner.run(only, tmp_path / "out", Progress(quiet=True))
    assert [variant["id"] for variant in report.variants] == ["float", "dynamic"]
    with pytest.raises(UsageError, match=r"no variant 'dynamc'\. Did you mean 'dynamic'\?"):
        recipe.only(["dynamc"])


def test_the_command(recipe: Recipe, compress: Callable[..., Any]) -> None:
    folder = recipe.path.parent / "run"
    ended = compress("run", recipe.path, "-o", folder, "--dry-run", "--variant", "small", "--json", "-")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["schema"] == "onnxpress.plan/1" and [step["variant"] for step in found["steps"]] == ["float", "small"]
    assert not folder.exists()
    recipe.path.write_text(RECIPE.replace("price: {box", "price: {bax"))
    ended = compress("run", recipe.path, "-o", folder, "--dry-run")
    assert ended.code == 2 and "price of 'bax': this machine is not among" in ended.err
