from datetime import timedelta

import pytest
from pydantic import ValidationError

from onnxpress.bench.options import BenchOptions
from onnxpress.bench.server import Sla


def test_defaults_measure_latency_and_throughput_on_the_cpu() -> None:
    found = BenchOptions()
    assert (found.providers, found.scenarios, found.threads, found.pairs) == (("cpu",), ("single", "offline"), None, 30)
    assert found.budget == timedelta(minutes=1)


def test_options_as_a_recipe_gives_them() -> None:
    found = BenchOptions.model_validate({"providers": ["cpu"], "scenarios": ["single", "single"], "budget": "90s"})
    assert (found.scenarios, found.budget) == (("single",), timedelta(seconds=90))


def test_options_as_the_command_line_gives_them() -> None:
    found = BenchOptions.model_validate(
        {
            "providers": ["cuda"],
            "scenarios": ("batch", "server"),
            "session_options": ("session.set_denormal_as_zero=1",),
            "provider_options": ("use_tf32=0", "enable_cuda_graph=1"),
            "batch": "1,8",
            "sla": "p99.9=1.5s",
            "max_regression": "3%",
        }
    )
    assert found.session_options == {"session.set_denormal_as_zero": "1"}
    assert found.provider_options == {"use_tf32": "0", "enable_cuda_graph": "1"}
    assert found.batch == (1, 8) and found.sla == Sla(percent=99.9, limit_ms=1500)
    assert found.max_regression == pytest.approx(0.03)


def test_options_in_a_recipe_may_be_numbers() -> None:
    found = BenchOptions.model_validate({"session_options": {"session.dynamic_block_base": 4}, "batch": [1, 4]})
    assert found.session_options == {"session.dynamic_block_base": "4"} and found.batch == (1, 4)


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
        ({"session_options": {"session.totally_bogus": 1}}, "session option 'session.totally_bogus': unknown"),
        ({"session_options": ["session.x64quantprecision"]}, "write KEY=VALUE"),
        ({"provider_options": ["use_tf32=0"]}, "option 'use_tf32' of execution provider 'cpu': unknown"),
        ({"scenarios": ["server"]}, "scenario server: needs a service level; give --sla p99=20ms"),
        ({"sla": "p98=20ms"}, "write a percentile (p50, p90, p95, p99, p99.9)"),
        ({"sla": "p99=20"}, "has no unit"),
        ({"batch": "1,0"}, "greater than or equal to 1"),
        ({"sessions": 0}, "greater than or equal to 1"),
        ({"max_regression": "5"}, "has no unit"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        BenchOptions.model_validate(given)
    assert says in str(caught.value)
