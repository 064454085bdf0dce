import re
from pathlib import Path

import pytest

from onnxpress import provenance
from onnxpress.errors import UsageError


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


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("zoo:digits_cn", "no such reference model. Did you mean 'digits_cnn'?"),
        ("missing.py:build", "there is no file missing.py"),
        ("no_such_module_of_anybody:build", "no module named 'no_such_module_of_anybody'"),
        ("missing.pt2", "there is no file missing.pt2"),
    ],
)
def test_a_source_that_is_not_there_has_no_hash(source: str, reason: str) -> None:
    with pytest.raises(UsageError, match=re.escape(reason)):
        provenance.source_sha256(source, None)
