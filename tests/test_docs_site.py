"""The pages as a site: it builds, every link and anchor leads somewhere, and nothing is loaded from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOADED = (
    re.compile(r"""<(?:script|img|iframe)[^>]+src=["']?(https?://[^"' >]+)"""),
    re.compile(r"""<link[^>]+rel=["']?stylesheet["']?[^>]+href=["']?(https?://[^"' >]+)"""),
)


def test_the_site_builds_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = sorted(site.rglob("*.html"))
    for source in (ROOT / "docs").rglob("*.md"):
        place = source.relative_to(ROOT / "docs").with_suffix("")
        page = site / (place if place.name != "index" else place.parent) / "index.html"
        assert page in pages, f"{source} is not in the site"
    scope = (site / "reference" / "scope" / "index.html").read_text(encoding="utf-8")
    assert "mutoscope.Scope.acquire" in scope
    texts = [page.read_text(encoding="utf-8") for page in pages]
    loaded = {address for text in texts for pattern in LOADED for address in pattern.findall(text)}
    assert not loaded, f"pages load from elsewhere: {sorted(loaded)}"
