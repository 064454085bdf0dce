"""The kind of this CPU, and what is said of models that were made for another."""

from typing import Any

import pytest

from onnxpress import cpu


def lineage(target: str, **options: str) -> list[dict[str, Any]]:
    return [
        {"step": "export", "options": {}},
        {"step": "quantize", "options": {"mode": "static", "target_cpu": target, **options}},
    ]


@pytest.mark.parametrize(
    ("here", "cut_off", "made_for", "says"),
    [
        ("avx2", True, "vnni", "answers differ here"),
        ("avx512", True, "arm", "answers differ here"),
        ("vnni", False, "avx2", "its times are not theirs"),
        ("amx", False, "vnni", "its times are not theirs"),
        ("arm", False, "amx", "this one is arm"),
        ("avx2", True, "avx512", "its times are not theirs"),
        ("vnni", False, "vnni", None),
        ("avx2", True, "any", None),
        (None, False, "vnni", None),
    ],
)
def test_a_model_for_another_kind_is_named(
    monkeypatch: pytest.MonkeyPatch, here: str | None, cut_off: bool, made_for: str, says: str | None
) -> None:
    monkeypatch.setattr(cpu, "kind", lambda: here)
    monkeypatch.setattr(cpu, "saturates", lambda: cut_off)
    found = list(cpu.made_for_others(lineage(made_for)))
    assert len(found) == (says is not None)
    assert says is None or (f"for {made_for} CPUs" in found[0] and says in found[0])


def test_only_integers_that_are_multiplied_depend_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "kind", lambda: "avx2")
    monkeypatch.setattr(cpu, "saturates", lambda: True)
    assert list(cpu.made_for_others(lineage("vnni", mode="weight-only"))) == []
    assert list(cpu.made_for_others([{"step": "quantize"}])) == []  # of an older version
    (found,) = cpu.made_for_others(lineage("vnni", weights="uint8"))
    assert "answers" not in found
