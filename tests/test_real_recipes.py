"""The recipes of the real models run from export to verdict, and a loss over a point never passes in silence."""

from pathlib import Path

import pytest

from onnxpress import runner
from onnxpress.bench.options import BenchOptions
from onnxpress.progress import Progress
from onnxpress.recipe import Recipe

FOLDER = Path(__file__).parents[1] / "benchmarks" / "real"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if not path.stem.startswith("gate"))


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # the loaders'
@pytest.mark.parametrize("name", NAMES)
def test_recipe(name: str, real: Path, tmp_path: Path) -> None:
    recipe = Recipe.load(FOLDER / f"{name}.yaml")
    quick = BenchOptions.model_validate({"scenarios": ["single"], "pairs": 6, "budget": "8s"})
    data = recipe.data
    if name == "minilm":  # all 4,500 pairs of sentences take minutes
        data = data.model_copy(update={"metric": f"{FOLDER / 'minilm.py'}:tenth_of_sts"})
    recipe = recipe.model_copy(update={"bench": quick, "data": data})
    report = runner.run(recipe, tmp_path / "run", Progress(quiet=True))
    assert real.is_dir() and report.checks
    int8 = report.variant("int8")
    assert int8["kernels"]["int8"] > 0
    assert int8["size_bytes"] < 0.5 * report.variant("float")["size_bytes"]
    verdicts = {(check.variant, check.rule): check.verdict for check in report.checks}
    assert verdicts["int8", "size.total_bytes"] == "pass"
    for variant in report.candidates:
        change = report.quality_change(variant)
        if change is not None and change["drop"] > 1:
            assert verdicts[variant, change["metric"].replace(".tenth_of_sts", ".custom")] != "pass"
