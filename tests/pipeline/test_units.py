import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress import units
from onnxpress.errors import UsageError


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("25 MiB", "bytes", 25 * 1024 * 1024),
        ("25 MB", "bytes", 25_000_000),
        ("1.5 GB", "bytes", 1.5e9),
        ("512B", "bytes", 512),
        ("8 ms", "ms", 8),
        ("2 s", "ms", 2000),
        ("60s", "ms", 60_000),
        ("3m", "ms", 180_000),
        ("250 µs", "ms", 0.25),
        ("5%", "ratio", 0.05),
        ("-5 %", "ratio", -0.05),
        ("0.35x", "ratio", 0.35),
        ("0.5pp", "pp", 0.5),
        ("100M", "count", 100_000_000),
        ("1.5k", "count", 1500),
        ("0.29 GB", "bytes", 290_000_000),
        (250, "count", 250),
        ("1.20 USD", "usd", 1.2),
        ("1e-3 USD", "usd", 0.001),
        ("30 dB", "db", 30),
    ],
)
def test_parse(text: object, dimension: units.Dimension, value: float) -> None:
    assert units.parse(text, dimension) == value


@pytest.mark.parametrize(
    ("text", "dimension", "says"),
    [
        ("8", "ms", "'8': has no unit (one of ns, us, µs, ms, s, m, min, h). Write for example '8 ms'."),
        (8, "bytes", "8: has no unit"),
        (0.05, "ratio", "0.05: has no unit (one of %, x). Write for example '5%'."),
        ("25 MB", "ms", "unknown unit 'MB'"),
        ("25 mb", "bytes", "unknown unit 'mb'"),
        ("fast", "ms", "'fast': is no number with a unit. Write for example '8 ms'."),
        ("1,5 GB", "bytes", "is no number with a unit"),
        ("", "count", "is no number"),
        (True, "count", "True: is no number"),
        (None, "count", "None: is no number"),
        ("nan ms", "ms", "is no number"),
        ("-1 MiB", "bytes", "cannot be negative"),
        ("1.5", "count", "is no whole number"),
        ("8 ms 9", "ms", "is no number"),
        ("1e999 s", "ms", "is too large"),
    ],
)
def test_parse_refuses(text: object, dimension: units.Dimension, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        units.parse(text, dimension)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "value"), [("50%", 0.5), (0.5, 0.5), ("0.5", 0.5), (".5", 0.5), (1, 1), ("100%", 1)])
def test_fraction(text: object, value: float) -> None:
    assert units.parse_fraction(text) == value


@pytest.mark.parametrize("text", ["150%", 1.5, "-1%", "half", "", None, True])
def test_fraction_refuses(text: object) -> None:
    with pytest.raises(units.UnitError, match=f"^{text!r}: is no share of a whole"):
        units.parse_fraction(text)


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (4_963_328, "bytes", "4.96 MB"),
        (999_600, "bytes", "1.00 MB"),
        (0, "bytes", "0 B"),
        (512, "bytes", "512 B"),
        (2.764, "ms", "2.76 ms"),
        (0.07, "ms", "70.0 µs"),
        (90_000, "ms", "1.50 min"),
        (0.0523, "ratio", "5.23%"),
        (-0.3, "ratio", "-30.0%"),
        (100_000_000, "count", "100M"),
        (1234, "count", "1.234k"),
        (12_345_678, "count", "12.345678M"),
        (12_300_001_234, "count", "12.300001234G"),
        (999, "count", "999"),
        (1.2, "usd", "1.20 USD"),
        (0.00123, "usd", "0.00123 USD"),
        (5.24691e-6, "usd", "0.00000525 USD"),
        (123_456.7, "usd", "123456.70 USD"),
        (0.5, "pp", "0.50 pp"),
        (32.94, "db", "32.9 dB"),
    ],
)
def test_show(value: float, dimension: units.Dimension, text: str) -> None:
    assert units.show(value, dimension) == text


def test_format_change_always_has_a_sign() -> None:
    assert units.format_change_pct(4.96) == "+5.0%"
    assert units.format_change_pct(-41.23) == "-41.2%"


@given(
    st.floats(min_value=1e-5, max_value=1e15, allow_subnormal=False), st.sampled_from(["bytes", "ms", "ratio", "usd"])
)
def test_what_is_shown_reads_back_to_three_digits(value: float, dimension: units.Dimension) -> None:
    assert math.isclose(units.parse(units.show(value, dimension), dimension), value, rel_tol=0.005)


@given(st.integers(min_value=0, max_value=10**15))
def test_counts_read_back_exactly(value: int) -> None:
    assert units.parse(units.show(value, "count"), "count") == value


@given(st.text(max_size=12), st.sampled_from(["bytes", "ms", "ratio", "pp", "count", "usd", "db"]))
def test_any_text_is_read_or_refused_in_one_line(text: str, dimension: units.Dimension) -> None:
    try:
        assert math.isfinite(units.parse(text, dimension))
    except UsageError as error:
        assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "count", "text"),
    [
        (11273.4, 4, "11273"),
        (112.734, 4, "112.7"),
        (0.0012345, 3, "0.00123"),
        (0.0, 3, "0"),
        (-1e-9, 3, "-0.000000001"),
    ],
)
def test_no_number_has_an_exponent(value: float, count: int, text: str) -> None:
    assert units.digits(value, count) == text
