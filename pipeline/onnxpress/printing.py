"""Text made safe to print: names in models, files and policies are somebody else's text.

A name may move a terminal's cursor, change its colours or its title, write from right to left, hide, or begin a line
that a CI system obeys. Every text that leaves, in whatever form, goes through `printable`.
"""

from __future__ import annotations

import logging
import re

LONGEST_WORD = 300
LONGEST_LINE = 5_000
COMMANDS = (
    *("add-mask", "add-matcher", "add-path", "debug", "echo", "endgroup", "error", "group", "notice", "remove-matcher"),
    *("save-state", "set-env", "set-output", "stop-commands", "warning"),
)
"""Workflow commands of GitHub (docs.github.com, "Workflow commands for GitHub Actions")."""
_COMMAND = re.compile(rf"(?<=\s):{{2,}}|^:{{2,}}|:{{2,}}(?=(?:{'|'.join(COMMANDS)})(?:::|\s))", re.IGNORECASE)
"""What GitHub's runner takes for a command: two colons after blanks. Where a line is wrapped inside a name is not known
here, so the commands that exist are found anywhere."""
_OLD_COMMAND = re.compile(r"##(?=\[|vso\[)", re.IGNORECASE)
"""The older form, ``##[error]``, and that of Azure Pipelines, which need not begin a line."""


def printable(text: str) -> str:
    """Return a text on one line that no terminal, log or CI system obeys, and that is not too long to read.

    Characters that are no text (controls, newlines, marks of direction, zero width, halves of pairs) become U+FFFD.
    """
    words = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda found: _shortened(found[0], LONGEST_WORD), visible(text))
    inert = _OLD_COMMAND.sub("## ", _COMMAND.sub(lambda found: " ".join(found[0]), words))
    return _shortened(inert, LONGEST_LINE)


def visible(text: str) -> str:
    """Return a text without characters that are none; see `printable`."""
    return (
        text
        if text.isprintable()
        else "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
    )


def one_line(text: str) -> str:
    """Return a message of ours or of a library, which may have lines, as one that is printable."""
    return printable(" ".join(text.split()))


class PrintableFormatter(logging.Formatter):
    """Formats log records on one line, whatever names are in them."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        return printable(super().format(record))


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    end = longest // 3
    return f"{text[: longest - end - 1]}…{text[len(text) - end :]}"
