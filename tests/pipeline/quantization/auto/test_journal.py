from pathlib import Path

import pytest

from onnxpress.errors import OutputError
from onnxpress.quantization.auto.journal import Journal


def test_what_was_put_is_there_again_in_the_same_context_only(tmp_path: Path) -> None:
    path = tmp_path / "search.jsonl"
    Journal(path, {"model": "a"}).put("ratio", {"value": 0.5})
    assert Journal(path, {"model": "a"}).get("ratio") == {"value": 0.5}
    other = Journal(path, {"model": "b"})
    assert other.get("ratio") is None and len(other) == 0


def test_a_line_cut_off_by_a_kill_costs_that_line_only(tmp_path: Path) -> None:
    path = tmp_path / "search.jsonl"
    first = Journal(path, {})
    first.put("one", 1)
    first.put("two", 2)
    path.write_text(path.read_text()[:-4])
    second = Journal(path, {})
    assert (second.get("one"), second.get("two")) == (1, None)
    second.put("three", 3)
    assert Journal(path, {}).get("three") == 3


def test_without_a_file_results_last_as_long_as_the_journal() -> None:
    journal = Journal(None, {})
    journal.put("one", 1)
    assert journal.get("one") == 1


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere/search\.jsonl: No such file"):
        Journal(tmp_path / "nowhere" / "search.jsonl", {})
