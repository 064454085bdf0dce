"""Terminal: the variants table and what the gate found; plain text where there is no terminal."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from onnxpress.gate.check import Check, Verdict
from onnxpress.printing import printable
from onnxpress.report import speed, tables, view
from onnxpress.report.report import Document, Report

PIPE_WIDTH = 180
NAMED = 3
"""Most variants that a line names."""
LEAST_WORDS = 12
"""Columns that a cell of words gets at least before numbers are left out."""
WIDE_CHECKS = 110
"""Columns from which a check fits a line."""
STYLES = {
    "pass": "green",
    "fail": "bold red",
    "warn": "yellow",
    "inconclusive": "yellow",
    "missing": "yellow",
    "waived": "cyan",
    "skipped": "dim",
    "waiver-expired": "bold red",
}


def render(report: Report, *, width: int | None = None, colour: bool | None = None) -> str:
    """Return the report for a terminal.

    Args:
        report: The report.
        width: Columns; None for those of the terminal, or `PIPE_WIDTH` in a pipe.
        colour: With escape codes; None for when the output is a terminal (and ``NO_COLOR`` is not set).

    """
    room = width or columns()
    table, left_out = _variants(report, room)
    parts: list[RenderableType] = [
        Text(printable(view.title(report)), style="bold"),
        Text(printable(view.verdict(report)), style=_style(report)),
        *_stops(report),
        Text(printable(report.headline.text)),
        "",
        table,
        "",
        Text(printable(f"{view.caption(report)}{left_out}"), style="dim"),
        "",
    ]
    notable = sorted((check for check in report.checks if check.verdict not in ("pass", "skipped")), key=view.urgency)
    if notable:
        parts += [_check_table(notable, width=room), ""]
    limits = Table.grid(padding=(0, 1, 0, 0))
    for limit in view.limits(report):
        limits.add_row("·", Text(printable(limit)), style="dim")
    return show([*parts, limits], width=width, colour=colour)


def gate(report: Report, policy: str, code: int, *, width: int | None = None, colour: bool | None = None) -> str:
    """Return what the gate found, what stops the release first.

    Args:
        report: With checks.
        policy: Path of the policy file.
        code: The exit code.
        width: See `render`.
        colour: See `render`.

    """
    judged = list(dict.fromkeys(check.variant for check in report.checks))
    named = ", ".join(judged) if len(judged) <= NAMED else f"{len(judged)} variants"
    where = [f"compress gate  {named} against {report.baseline}"]
    if report.bench is not None:
        host, runtime = report.bench["host"], report.bench["runtime"]
        where += [f"host {host['fingerprint'][:8]} ({host['cpu']})"]
        where += [f"onnxruntime {runtime['onnxruntime']} {runtime['provider']}"]
    failing = next((check for check in report.checks if check.outcome == "fail" and check.line), None)
    advice = f" To accept it all the same, edit {policy}:{failing.line} or add a waiver." if failing else ""
    ordered = sorted(report.checks, key=view.urgency)
    parts: list[RenderableType] = [
        Text(printable("   ".join(where)), style="dim"),
        _check_table(ordered, width=width or columns()),
        "",
        *(Text(printable(line), style="yellow") for line in view.made_for_others(report)),
        Text(
            printable(f"{view.tally(report.checks)} → exit {code}.{view.unjudged(report)}{advice}"),
            style=_style(report),
        ),
    ]
    return show(parts, width=width, colour=colour)


def evaluation(document: Document) -> str:
    """Return an evaluation for a terminal."""
    report = _around(document, document["baseline"])
    table = _table(tables.qualities(replace(report, evaluation=document)))
    return show([table, *(Text(printable(line)) for line in document.get("warnings", ()))])


def bench(document: Document) -> str:
    """Return a benchmark for a terminal."""
    report = replace(_around(document, document["baseline"]), bench=document)
    more = [part for table in speed.tables(document) for part in ("", Text(table.caption, style="dim"), _table(table))]
    limits = (f"· {printable(limit)}" for limit in view.limits_of_bench(report))
    return show([_table(tables.timings(report)), *more, "", *limits])


def cost(document: Document) -> str:
    """Return a cost report for a terminal."""
    report = replace(_around(document, document["variants"][0]["id"]), cost=document)
    notes = (f"· {printable(limit)}" for limit in view.limits_of_cost(report))
    contents = [tables.costs(report), tables.months(report), tables.prices(report)]
    return show([*(part for content in contents if content.rows for part in (_table(content), "")), *notes])


def _around(document: Document, baseline: str) -> Report:
    """Return a report that holds nothing yet but the variants of a document."""
    variants = tuple({"id": variant["id"]} for variant in document["variants"])
    return Report(recipe={}, versions={}, created=None, baseline=baseline, variants=variants)


def _table(content: tables.Table) -> Table:
    """Return a table whose first column and numbers stay whole: columns at the right go where there is no room."""
    for count in range(len(content.headings), 1, -1):
        table, foldable = _ruled(), 0
        for index, heading in enumerate(content.headings[:count]):
            words = 0 < index < content.words
            table.add_column(
                Text(printable(heading)),
                justify="left" if index < content.words else "right",
                overflow="fold",
                no_wrap=not words,
            )
            longest = max((len(row[index]) for row in content.rows), default=0)
            foldable += max(0, longest - LEAST_WORDS) if words else 0
        for row in content.rows:
            table.add_row(*(Text(printable(text)) for text in row[:count]))
        if count <= content.words or _width(table) - foldable <= columns():
            break
    if count < len(content.headings):
        table.caption = Text(
            f"not shown here: {printable(', '.join(content.headings[count:]))}", style="dim", justify="left"
        )
    return table


def _ruled() -> Table:
    return Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))


def _style(report: Report) -> str:
    return f"bold {STYLES[report.verdict]}" if report.verdict else "bold"


def _check_table(checks: Sequence[Check], *, width: int) -> Table:
    """Return what the gate found: a row for each check, and one for all variants that pass the same rule."""
    narrow = width < WIDE_CHECKS
    table = Table.grid(padding=(0, 2, 0, 0))
    for mark, rule, variant, text in _check_rows(checks):
        first = Text(view.VERDICT_MARKS[mark], style=STYLES[mark])
        if narrow:
            table.add_row(first, Text.assemble(printable(f"{rule}  {variant}"), "\n", (printable(text), "dim")))
        else:
            table.add_row(first, *(Text(printable(part)) for part in (rule, variant, text)))
    return table


def _check_rows(checks: Sequence[Check]) -> Iterator[tuple[Verdict, str, str, str]]:
    """Yield verdict, rule, variant and text; those of one rule that say the same together."""
    alike: dict[tuple[Verdict, str, str, str], list[Check]] = {}
    advised: set[tuple[str, str]] = set()
    for given in checks:
        check = replace(given, advice="") if (given.rule, given.advice) in advised else given
        advised.add((check.rule, check.advice))
        alike.setdefault((check.verdict, check.rule, check.limit, check.reason), []).append(check)
    for group in alike.values():
        check = group[0]
        if len(group) == 1:
            yield check.verdict, check.rule, check.variant, view.found(check)
            continue
        measured = list(dict.fromkeys(one.measured for one in group if one.measured))
        numbers = "; ".join(measured) if len(measured) <= NAMED or check.verdict == "pass" else ""
        text = f"{numbers} ({check.limit})" if check.verdict == "pass" else view.why(check)
        if numbers and check.verdict != "pass":
            text = f"{numbers}: {text}"
        yield check.verdict, check.rule, f"{len(group)} variants", text


def show(parts: Sequence[RenderableType], *, width: int | None = None, colour: bool | None = None) -> str:
    """Print rich parts into a text, without trailing blanks."""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") if colour is None else colour
    console = Console(
        file=io.StringIO(),
        width=width or columns(),
        force_terminal=colour,
        color_system="standard" if colour else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def columns() -> int:
    """Return the width of the terminal."""
    return shutil.get_terminal_size((PIPE_WIDTH, 24)).columns


def _stops(report: Report) -> Iterator[RenderableType]:
    for mark, sentence in view.stops(report):
        row = Table.grid(padding=(0, 1, 0, 0))
        row.add_row(Text(view.VERDICT_MARKS[mark], style=STYLES[mark], no_wrap=True), Text(printable(sentence)))
        yield row


Layout = Callable[[view.Cell], list[Text]]


def _apart(cell: view.Cell) -> list[Text]:
    """Give number and detail columns of their own."""
    return [Text(printable(cell.text)), Text(printable(cell.beside), style="dim")]


def _over(cell: view.Cell) -> list[Text]:
    """Put the detail below the number."""
    return [_stacked(cell.text, printable(cell.beside))]


def _tower(cell: view.Cell) -> list[Text]:
    """Put the detail below the number, and the interval below that."""
    return [_stacked(cell.text, "\n".join(filter(None, (printable(cell.detail), printable(cell.interval)))))]


def _stacked(text: str, below: str) -> Text:
    return Text.assemble(printable(text), *([("\n" + below, "dim")] if below else []))


KEPT = (6, 2, 1, 0, 3, 4, 5)
"""Columns of the variants table in the order in which they are kept where there is no room for all."""


def _variants(report: Report, room: int) -> tuple[Table, str]:
    """Return the variants table as wide as the room, and which columns had none.

    Names stay whole: numbers are stacked first, then columns are left out.
    """
    headings = view.headings(report)
    for layout in (_apart, _over, _tower):
        table = _laid_out(report, layout, range(len(headings)))
        if _width(table) <= room:
            return table, ""
    for count in range(len(KEPT) - 1, 0, -1):
        shown = sorted(KEPT[:count])
        table = _laid_out(report, _tower, shown)
        if _width(table) <= room or count == 2:
            left = [headings[index].text for index in sorted(KEPT[count:])]  # a variant may be named alike
            said = f"column{'s' * (len(left) > 1)} {', '.join(left)}"
            return table, f" Not shown here: {said}; report.html has all."
    raise AssertionError("count reaches 2")


def _laid_out(report: Report, layout: Layout, shown: Sequence[int]) -> Table:
    table = _ruled()
    table.add_column("variant", overflow="fold")
    headings = view.headings(report)
    for index in shown:
        for text in layout(headings[index]):
            table.add_column(text, justify="right", no_wrap=True)
    for row in view.rows(report):
        style = STYLES["fail"] if row.outcome == "fail" else ""
        cells = [text for index in shown for text in layout(row.cells[index])]
        verdict = cells[-1] if layout is not _apart else cells[-2]
        verdict.stylize(STYLES.get(row.outcome or "", ""), 0, len(row.cells[-1].text))
        table.add_row(Text(printable(row.variant), style=style), *cells)
    return table


def _width(table: Table) -> int:
    """Return how many columns a table needs so that no cell is broken."""
    return Console(width=10_000, file=io.StringIO()).measure(table).maximum
