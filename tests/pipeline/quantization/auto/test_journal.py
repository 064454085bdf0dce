from dataclasses import dataclass
from pathlib import Path

import pytest

from onnxpress.bench.statistics import Interval
from onnxpress.errors import OutputError
from onnxpress.quantization.auto.journal import Journal

RATIO = Interval(value=0.5, low=0.4, high=0.6, count=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    ends: tuple[float, float] | None


def test_what_was_put_is_there_again_in_the_same_context_only(tmp_path: Path) -> None:
    path = tmp_path / "search.jsonl"
    Journal(path, {"model": "a"}).put("ratio", RATIO)
    assert Journal(path, {"model": "a"}).get("ratio", Interval) == RATIO
    other = Journal(path, {"model": "b"})
    assert other.get("ratio", Interval) is None and len(other) == 0


@pytest.mark.parametrize("value", [Pair(ends=(1.0, 2.0)), Pair(ends=None)])
def test_tuples_and_none_come_back_as_they_were(tmp_path: Path, value: Pair) -> None:
    path = tmp_path / "search.jsonl"
    Journal(path, {}).put("pair", value)
    assert Journal(path, {}).get("pair", Pair) == value


def test_a_line_cut_off_by_a_kill_costs_that_line_only(tmp_path: Path) -> None:
    path = tmp_path / "search.jsonl"
    first = Journal(path, {})
    first.put("one", 1)
    first.put("two", 2)
    path.write_text(path.read_text()[:-4])
    second = Journal(path, {})
    assert (second.get("one", int), second.get("two", int)) == (1, None)
    second.put("three", 3)
    assert Journal(path, {}).get("three", int) == 3


@pytest.mark.parametrize("damage", [b"5", b"null", b"[1, 2]", b"[" * 100_000, b"\xff\xfe", b'[[], {}, "x"]'])
def test_a_damaged_line_costs_that_line_only(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "search.jsonl"
    Journal(path, {}).put("ratio", RATIO)
    path.write_bytes(damage + b"\n" + path.read_bytes())
    assert Journal(path, {}).get("ratio", Interval) == RATIO


def test_what_is_of_another_type_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "search.jsonl"
    Journal(path, {}).put("ratio", {"value": "fast"})
    assert Journal(path, {}).get("ratio", Interval) is None


def test_without_a_file_results_last_as_long_as_the_journal() -> None:
    journal = Journal(None, {})
    journal.put("one", 1)
    assert journal.get("one", int) == 1


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere/search\.jsonl: No such file"):
        Journal(tmp_path / "nowhere" / "search.jsonl", {})
