from datetime import timedelta

import pytest
from pydantic import ValidationError

from onnxpress.bench.options import BenchOptions


def test_defaults_measure_latency_and_throughput_on_the_cpu() -> None:
    found = BenchOptions()
    assert (found.providers, found.scenarios, found.threads, found.pairs) == (("cpu",), ("single", "offline"), None, 30)
    assert found.budget == timedelta(minutes=1)


def test_options_as_a_recipe_gives_them() -> None:
    found = BenchOptions.model_validate({"providers": ["cpu"], "scenarios": ["single", "single"], "budget": "90s"})
    assert (found.scenarios, found.budget) == (("single",), timedelta(seconds=90))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"providers": ["cup"]}, "unknown execution provider 'cup'. Did you mean 'cpu'?"),
        ({"scenarios": ["offlin"]}, "unknown scenario 'offlin'. Did you mean 'offline'?"),
        ({"scenarios": []}, "at least 1 item"),
        ({"budget": 60}, "60: has no unit"),
        ({"budget": "60 MB"}, "unknown unit 'MB'"),
        ({"pairs": 5}, "greater than or equal to 6"),
        ({"threads": 0}, "greater than or equal to 1"),
        ({"spin": "maybe"}, "'on', 'stop' or 'off'"),
        ({"bugdet": "60s"}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        BenchOptions.model_validate(given)
    assert says in str(caught.value)
