from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from onnxpress.pruning import PruneOptions


def test_percent_and_fraction_are_the_same() -> None:
    assert PruneOptions(amount="30%").amount == PruneOptions(amount=0.3).amount == pytest.approx(0.3)
    assert PruneOptions(target={"macs": "70%"}) == PruneOptions(target="macs=0.7") == PruneOptions(target={"macs": 0.7})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "exactly one of amount and target"),
        ({"amount": 0.3, "target": {"macs": 0.7}}, "exactly one of amount and target"),
        ({"amount": "130%"}, "no share of a whole"),
        ({"amount": -0.1}, "no share of a whole"),
        ({"amount": "many"}, "no number"),
        ({"target": {"macs": 1.5}}, "no share of a whole"),
        ({"target": {"flops": 0.5}}, "'macs', 'params' or 'bytes'"),
        ({"target": {"macs": 0.5, "params": 0.5}}, "no target"),
        ({"target": 0.5}, "no target"),
        ({"amount": 0.3, "method": "l3"}, "unknown method 'l3'. Known: activation, l1, "),
        ({"amount": 0.3, "granularity": "chanel"}, "neither channel nor weight nor a pattern"),
        ({"amount": 0.3, "granularity": "4:4"}, "neither channel nor weight nor a pattern"),
        ({"amount": 0.3, "round_to": 0}, "greater than or equal to 1"),
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
