from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def no_tables_of_this_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Prices of whoever runs the tests must not reach them."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
