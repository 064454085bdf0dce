"""Markdown: the tables of the report, for a pull request or a step summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onnxpress.printing import printable
from onnxpress.report import assumptions, details, tables, view
from onnxpress.report.report import Report

_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>#|~&"})


def render(report: Report) -> str:
    """Return the report as Markdown."""
    parts = [
        f"# {escape(view.title(report))}",
        f"**{escape(view.verdict(report))}**",
        "\n".join(f"- {escape(f'{view.VERDICT_MARKS[mark]} {sentence}')}" for mark, sentence in view.stops(report)),
        escape(report.headline.text),
        _lines(
            ["variant<br>steps", *map(cell, view.headings(report))],
            (_row(row) for row in view.rows(report)),
            words=1,
        ),
        escape(view.caption(report)),
    ]
    sections: dict[str, list[tables.Table]] = {
        "Gate": [tables.checks(report), tables.passed(report)],
        "Size": [tables.sizes(report), details.dtypes(report)],
        "Layers": [details.sparsity(report), details.sensitivity(report)],
        "Speed": [tables.timings(report), details.operator_table(report)] if report.bench else [],
        "Memory and cold start": [details.resources(report)],
        "Accuracy": [tables.qualities(report), details.classes(report), details.flips(report)]
        if report.evaluation
        else [],
        "Cost": [tables.costs(report), tables.months(report), assumptions.table(report), tables.prices(report)]
        if report.cost
        else [],
        "Kernels": [tables.kernels(report)],
    }
    for name, contents in sections.items():
        filled = [content for content in contents if content.rows]
        if filled:  # what was not measured is among the limits
            parts += [f"## {name}", *(table(content) for content in filled)]
    parts += ["## Limits of these measurements", "\n".join(f"- {escape(limit)}" for limit in view.limits(report))]
    return "\n\n".join(filter(None, parts)) + "\n"


def _row(row: view.Row) -> list[str]:
    """Return a variant; what fails has a red mark, the only colour that Markdown has."""
    *cells, verdict = map(cell, row.cells)
    mark = "🔴 " if row.outcome == "fail" else ""
    return [f"{escape(row.variant)}<br>{escape(row.steps)}", *cells, f"{mark}{verdict}"]


def table(content: tables.Table) -> str:
    """Return a table with its caption above it."""
    headings, *rows = ([escape(text) for text in row] for row in (content.headings, *content.rows))
    return f"{escape(content.caption)}\n\n{_lines(headings, rows, words=content.words)}"


def _lines(headings: Sequence[str], rows: Iterable[Sequence[str]], *, words: int) -> str:
    ruler = ["---" if index < words else "---:" for index in range(len(headings))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, ruler, *rows))


def cell(content: view.Cell) -> str:
    """Return a cell in one or two lines."""
    return "<br>".join(escape(part) for part in (content.text, content.beside) if part)


def escape(text: str) -> str:
    """Write a text so that Markdown takes none of it for markup, and keeps it on one line."""
    return printable(" ".join(text.split())).translate(_SPECIAL)
