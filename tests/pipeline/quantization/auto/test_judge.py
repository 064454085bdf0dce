from pathlib import Path

import graphs
import numpy as np
import pytest

from onnxpress import artifact
from onnxpress.quantization import QuantizeOptions
from onnxpress.quantization.auto.judge import HELD_OUT, SEARCH, Bound, Judge, Quality
from onnxpress.quantization.quantize import quantize
from onnxpress.session import SessionOptions, open_session, run
from onnxpress_calibration.dataset import Dataset


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    model = graphs.conv_chain()
    edit = quantize(model, QuantizeOptions(calibrator="minmax"), graphs.normal((16, 3, 8, 8)))
    files = artifact.save(model, tmp_path / "float.onnx"), artifact.save(edit.model, tmp_path / "int8.onnx")
    return files[0].path, files[1].path


def labelled(count: int) -> Dataset:
    random = np.random.default_rng(5)
    values = random.normal(size=(count, 3, 8, 8)).astype(np.float32)
    labels = random.integers(0, 5, count)
    return Dataset(origin="labelled", read=lambda: [{"x": values, "y": labels}])


def test_the_halves_are_every_second_sample(models: tuple[Path, Path]) -> None:
    data = labelled(20)
    judge = Judge(models[0], data, "top1", SessionOptions(threads=1))
    sessions = [open_session(path, SessionOptions(threads=1)) for path in models]
    chunk = next(iter(data.read()))
    right = [
        np.array([run(session, {"x": x[None]})["y"].argmax() for x in chunk["x"]]) == chunk["y"] for session in sessions
    ]
    for half in (SEARCH, HELD_OUT):
        expected = 100 * (right[0][half::2].mean() - right[1][half::2].mean())
        assert judge.quality(models[1], half).drop == pytest.approx(expected)
    assert judge.quality(models[1], SEARCH).sqnr_db != judge.quality(models[1], HELD_OUT).sqnr_db
    whole = judge.quality(models[1], None)
    assert whole.samples == 20 and whole.drop == pytest.approx(100 * (right[0].mean() - right[1].mean()))
    assert whole.expected_drop is not None and 0 <= whole.expected_drop < 5


def test_a_users_function_is_asked_once_per_model(models: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "metric.py").write_text(
        "import numpy as np\n"
        "calls = []\n"
        "def score(session):\n"
        "    calls.append(session)\n"
        "    assert len(calls) <= 2\n"
        "    return np.arange(6.0) if len(calls) == 1 else np.array([0, 0, 2, 2, 4, 4.0])\n"
    )
    judge = Judge(models[0], labelled(4), f"{tmp_path / 'metric.py'}:score", SessionOptions(threads=1))
    assert judge.quality(models[1], SEARCH).drop == pytest.approx(0)  # 0, 2, 4 both times
    assert judge.quality(models[1], HELD_OUT).drop == pytest.approx(1)  # 1, 3, 5 against 0, 2, 4


@pytest.mark.parametrize(
    ("drop", "ci95", "expected", "keeps"),
    [
        (1.6, (-0.6, 4.5), 0.3, True),  # 2 of 125 answers: noise, say the probabilities
        (0.4, (-0.8, 1.9), 1.4, False),  # luck, say the probabilities
        (3.0, (1.1, 6.0), 0.3, False),  # the labels are sure
        (1.6, (-0.6, 4.5), None, False),  # nothing better than what was measured
        (0.9, None, None, True),
        (1.6, None, 0.0, True),
        (None, None, 0.7, True),  # without a metric
        (None, None, 1.2, False),
        (None, None, None, False),
    ],
)
def test_a_drop_is_too_large_when_the_evidence_says_so(
    drop: float | None, ci95: tuple[float, float] | None, expected: float | None, keeps: bool
) -> None:
    found = Quality(drop=drop, ci95=ci95, expected_drop=expected, sqnr_db=None, agreement_pct=None)
    assert found.keeps(Bound(max_drop=1.0)) is keeps
    assert not found.proves(Bound(max_drop=1.0))


def test_a_bound_is_kept_by_the_estimate_and_proved_by_the_interval() -> None:
    bound = Bound(max_drop=1.0, min_sqnr_db=20.0)
    good = Quality(drop=0.5, ci95=(0.2, 0.9), sqnr_db=25.0, agreement_pct=None)
    wide = Quality(drop=0.5, ci95=(-2.0, 3.0), sqnr_db=25.0, agreement_pct=None)
    noisy = Quality(drop=0.5, ci95=(0.2, 0.9), sqnr_db=15.0, agreement_pct=None)
    worse = Quality(drop=1.5, ci95=(1.2, 1.9), sqnr_db=25.0, agreement_pct=None)
    assert [each.keeps(bound) for each in (good, wide, noisy, worse)] == [True, True, False, False]
    assert [each.proves(bound) for each in (good, wide, noisy, worse)] == [True, False, False, False]
    assert str(bound) == "drop <= 1, SQNR >= 20 dB"
