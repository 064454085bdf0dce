from pathlib import Path

import pytest

from onnxpress import provenance


def test_the_hash_of_a_source_follows_the_code_beside_the_factory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mynets").mkdir()
    (tmp_path / "mynets" / "__init__.py").write_text("")
    (tmp_path / "mynets" / "net.py").write_text("def build(): ...\n")
    sources = ("mynets.net:build", "mynets/net.py:build")
    before = [provenance.source_sha256(source, None) for source in sources]
    assert before == [provenance.source_sha256(source, None) for source in sources]
    (tmp_path / "mynets" / "net.py").write_text("def build(): return 1\n")
    assert all(
        new != old for new, old in zip((provenance.source_sha256(s, None) for s in sources), before, strict=True)
    )
    assert provenance.source_sha256("zoo:digits_mlp", None) != provenance.source_sha256("zoo:digits_cnn", None)
