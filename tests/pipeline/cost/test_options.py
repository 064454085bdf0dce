from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from onnxpress.cost.options import CostOptions


@pytest.mark.parametrize(
    ("text", "hours", "usd_per_hour", "other_usd"),
    [("400", 0, "0", "400"), ("2.5h@0.20", 2.5, "0.20", "0"), ("2.5 h @ 0.20 + 400", 2.5, "0.20", "400")],
)
def test_what_a_variant_cost_once(text: str, hours: float, usd_per_hour: str, other_usd: str) -> None:
    found = CostOptions.model_validate({"one_off": [f"int8={text}"]}).one_off["int8"]
    assert (found.hours, found.usd_per_hour, found.other_usd) == (hours, Decimal(usd_per_hour), Decimal(other_usd))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"one_off": ["int8=soon"]}, "hours of a machine at its price"),
        ({"one_off": ["int8=2.5h"]}, "hours of a machine at its price"),
        ({"one_off": ["int8=2.5h@0.20 400"]}, "hours of a machine at its price"),
        ({"storage_usd_per_gb_month": "cheap"}, "cheap"),
    ],
)
def test_what_cannot_be_read_is_said(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        CostOptions.model_validate(given)
