"""Run axe-core on reports in headless Chromium and print what it finds.

    npm pack axe-core && tar xzf axe-core-*.tgz package/axe.min.js
    python benchmarks/report/accessibility.py package/axe.min.js report.html …

The page's own policy forbids foreign scripts, so the check runs on a copy without it, in light and dark. The exit code
is 1 when there is a violation.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSER = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=30000", "--dump-dom")
SCHEMES = {"light": (), "dark": ("--blink-settings=preferredColorScheme=0",)}


def main() -> None:
    """Check every page."""
    axe, *pages = (Path(word) for word in sys.argv[1:])
    worst = 0
    for page in pages:
        for scheme, options in SCHEMES.items():
            found = violations(page, axe.read_text(encoding="utf-8"), options)
            worst = max(worst, len(found))
            print(f"{page}, {scheme}: {len(found)} violations")
            for one in found:
                print(f"  {one['impact']}: {one['id']}: {one['help']} ({one['count']} elements, first {one['first']})")
    sys.exit(bool(worst))


def violations(page: Path, axe: str, options: tuple[str, ...]) -> list[dict[str, str]]:
    """Return what axe-core complains about."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    run = """axe.run(document).then((found) => { const out = document.createElement("pre"); out.id = "axe";
      out.textContent = JSON.stringify(found.violations.map((one) => ({id: one.id, impact: one.impact, help: one.help,
        count: one.nodes.length, first: one.nodes[0].target.join(" ")}))); document.body.append(out); });"""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "page.html"
        copy.write_text(text.replace("</body>", f"<script>{axe}</script><script>{run}</script></body>"))
        words = [*BROWSER, *options, f"--user-data-dir={folder}/profile", copy.as_uri()]
        dom = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout
    (result,) = re.findall(r'<pre id="axe">(.*?)</pre>', dom, re.DOTALL)
    unescaped = result.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    parsed: list[dict[str, str]] = json.loads(unescaped)
    return parsed


if __name__ == "__main__":
    main()
