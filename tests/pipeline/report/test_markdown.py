from __future__ import annotations

import re

import pytest

from onnxpress.report.formats import markdown
from onnxpress.report.report import Report


def test_every_table_is_whole(report: Report, hostile: Report) -> None:
    for found in (report, hostile):
        blocks = re.findall(r"(?:^\|.*\n)+", markdown.render(found), re.MULTILINE)
        assert len(blocks) == 11
        for block in blocks:
            columns = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(columns) == 1


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("<b>", r"\<b\>"),
        ("a|b", r"a\|b"),
        ("one\ntwo", "one two"),
        ("&lt;", r"\&lt;"),
        ("`x` *y* _z_", r"\`x\` \*y\* \_z\_"),
        ("[l](u)", r"\[l\](u)"),
        ("\x1b[1m", "\N{REPLACEMENT CHARACTER}\\[1m"),
    ],
)
def test_markup_is_escaped(text: str, escaped: str) -> None:
    assert markdown.escape(text) == escaped
