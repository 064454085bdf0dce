from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from onnxpress.pruning import PruneOptions


def test_percent_and_fraction_are_the_same() -> None:
    assert PruneOptions(amount="30%").amount == PruneOptions(amount=0.3).amount == pytest.approx(0.3)
    assert PruneOptions(target={"macs": "70%"}) == PruneOptions(target="macs=0.7") == PruneOptions(target={"macs": 0.7})


def test_latency_is_a_share_or_a_time() -> None:
    assert (
        PruneOptions(target="latency=0.8").target == PruneOptions(target={"latency": "80%"}).target == {"latency": 0.8}
    )
    for given in ("latency=5ms", {"latency": "5 ms"}, {"latency": "0.005 s"}, {"latency_ms": 5}):
        options = PruneOptions(target=given)
        assert options.target == {"latency_ms": 5.0}
        assert PruneOptions.model_validate(options.model_dump(mode="json")) == options


def test_what_depends_on_the_host() -> None:
    assert PruneOptions(amount=0.3).depends_on_host
    assert PruneOptions(target="latency=0.8", round_to=8).depends_on_host
    assert not PruneOptions(target="macs=0.8", round_to=8).depends_on_host
    assert not PruneOptions(amount=0.3, granularity="weight").depends_on_host


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "exactly one of amount and target"),
        ({"amount": 0.3, "target": {"macs": 0.7}}, "exactly one of amount and target"),
        ({"amount": "130%"}, "no share of a whole"),
        ({"amount": -0.1}, "no share of a whole"),
        ({"amount": "many"}, "no share of a whole"),
        ({"target": {"macs": 1.5}}, "no share of a whole"),
        ({"target": {"flops": 0.5}}, "'macs', 'params', 'bytes', 'latency' or 'latency_ms'"),
        ({"target": {"macs": 0.5, "params": 0.5}}, "no target"),
        ({"target": 0.5}, "no target"),
        ({"amount": 0.3, "method": "l3"}, "unknown method 'l3'. Known: activation, auto, l1, "),
        ({"amount": 0.3, "granularity": "chanel"}, "neither channel nor weight nor a pattern"),
        ({"amount": 0.3, "granularity": "4:4"}, "neither channel nor weight nor a pattern"),
        ({"amount": 0.3, "round_to": -1}, "greater than or equal to 0"),
        ({"amount": 0.3, "provider": "gpu"}, "unknown execution provider 'gpu'"),
        ({"target": "latency=5"}, "no share of a whole"),
        ({"target": "latency=5 m s"}, "no number with a unit"),
        ({"target": {"latency_ms": "5ms"}}, "unknown unit"),
        ({"amount": 0.3, "include": "("}, "no regular expression"),
        ({"amount": 0.3, "mehtod": "l2"}, "Extra inputs"),
        ({"granularity": "weight"}, "needs an amount"),
        ({"granularity": "weight", "amount": 0.5, "round_to": 4}, "round_to is for granularity channel only"),
        ({"granularity": "weight", "target": {"macs": 0.5}}, "target is for granularity channel only"),
        ({"granularity": "2:4", "amount": 0.5}, "leave out amount"),
        ({"granularity": "2:4", "allocation": "uniform"}, "leave out amount"),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message.replace("(", r"\(")):
        PruneOptions(**values)


def test_pattern() -> None:
    assert PruneOptions(granularity="2:4").pattern == (2, 4)
    assert PruneOptions(granularity="weight", amount=0.5).pattern is None


def test_include_and_exclude() -> None:
    options = PruneOptions(amount=0.1, include="^layer", exclude="head$")
    assert options.selects("layer1/conv")
    assert not options.selects("layer1/head")
    assert not options.selects("stem")
