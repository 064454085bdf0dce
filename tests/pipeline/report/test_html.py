from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from onnxpress.report.formats import html
from onnxpress.report.report import Report

VOID = {"meta", "br", "input"}


class Page(HTMLParser):
    """What a test wants to know of a page: its elements, whether they nest, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_page_loads_nothing_and_runs_nothing_but_its_own_script(report: Report, hostile: Report) -> None:
    for found in (report, hostile):
        page = Page(html.render(found))
        assert {tag for tag, _ in page.elements}.isdisjoint({"img", "link", "iframe", "object", "base", "form"})
        (script,) = re.findall(r"<script>(.*?)</script>", html.render(found), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert page.all("script") == [{}]
        assert not re.search(r"fetch|XMLHttp|eval|innerHTML|import", script)
        for _, attributes in page.elements:
            assert not {name for name in attributes if name in ("src", "srcset", "style") or name.startswith("on")}
        assert {attributes["href"] for attributes in page.all("a")} <= {f"#{name['id']}" for name in page.all("h2")}
        (policy,) = (
            meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"
        )
        assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert "http" not in re.sub(r'http-equiv="[^"]*"', "", html.render(report))


def test_accuracy_stands_against_macs_where_variants_differ_in_them(report: Report) -> None:
    page = Page(html.render(report))
    (label,) = [svg["aria-labelledby"] for svg in page.all("svg") if str(svg["aria-labelledby"]).startswith("work-")]
    assert label == "work-title work-description"
    assert "41,214,464 MACs" in page.text and "28,850,120 MACs" in page.text
    same = [variant | {"macs": 41214464} for variant in report.variants]
    assert "work-title" not in html.render(dataclasses.replace(report, variants=tuple(same)))


def test_names_are_text(hostile: Report) -> None:
    page = Page(html.render(hostile))
    assert '<script>alert("1")</script>' in page.text
    assert len(page.all("script")) == 1


def test_every_table_and_chart_can_be_read_aloud(report: Report) -> None:
    page = Page(html.render(report))
    assert len(page.all("table")) == len(page.all("caption")) >= 10
    assert all(heading.get("scope") in ("col", "row") for heading in page.all("th"))
    assert len(page.all("svg")) >= 4
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for chart in page.all("svg"):
        assert set((chart["aria-labelledby"] or "").split()) <= set(ids)
    assert page.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.elements if tag in ("h1", "h2", "h3")]
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))  # no level is left out
    (slider,) = page.all("input")
    assert slider["id"] in [label["for"] for label in page.all("label")]
    scrolling = [region for region in page.all("div") if region.get("class") == "scroll"]
    assert all(
        region["tabindex"] == "0" and (region.get("role") is None or region["aria-label"]) for region in scrolling
    )


def test_what_stayed_float_and_what_was_skipped_is_there(report: Report) -> None:
    page = Page(html.render(report))
    for expected in (
        "channels are coupled through a Reshape",
        "excluded: sensitivity 2.4 dB above the limit",
        "int8: 1 node stayed float",
        "pruned: 2 places left alone",
        "calibrator mse",
        report.variant("pruned-int8")["sha256"],
        "max_abs_error 4.8e-06",
    ):
        assert expected in page.text, expected


def test_a_large_model_stays_a_small_page(report: Report) -> None:
    many = [{"where": f"/model/layer.{i}/attention/MatMul", "op": "MatMul", "reason": "r" * 60} for i in range(5000)]
    variants = [variant | {"kernels": variant["kernels"] | {"stayed_float": many}} for variant in report.variants]
    text = html.render(dataclasses.replace(report, variants=tuple(variants)))
    assert len(text.encode()) < 500_000
    assert "and 4800 more in report.json" in text
    assert len(html.render(report).encode()) < 100_000


@pytest.mark.parametrize("name", ["evaluation", "bench", "cost"])
def test_a_part_that_was_not_measured_leaves_no_hole(report: Report, name: str) -> None:
    page = Page(html.render(dataclasses.replace(report, **{name: None})))
    assert len(page.all("h2")) == 12
    assert "Not measured" in page.text or "Not computed" in page.text


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, WCAG 2.2."""

    def luminance(colour: str) -> float:
        parts = (int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5))
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_has_contrast_in_both_schemes(report: Report) -> None:
    schemes = re.findall(r":root \{(.*?)\}", html.render(report), re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w{6});", scheme))
        for ink in ("ink", "faint", "accent", "good", "bad", "open"):
            for paper in ("page", "panel"):
                assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)
        assert contrast(colours["neutral"], colours["page"]) >= 3


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_shows_it_without_complaint(report: Report, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(html.render(report), encoding="utf-8")
    quiet = (
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    )
    sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    found = subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            *sandbox,
            *quiet,
            profile,
            "--enable-logging=stderr",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "The gate fails" in found.stdout
    assert "CONSOLE" not in found.stderr
