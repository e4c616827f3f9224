"""A bundle of 100,000 entries in the verifier's page, against the script on the same file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ledger.service import Ledger
from projections.exports.bundle import VERIFIER_PAGE, export_range
from projections.queries import ViewReader
from projections.rebuild import rebuild
from scripts.benchmarks.figures import Figure, Value, compare, skipped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.benchmarks.filling import LargeLedger
    from scripts.benchmarks.options import Options
    from scripts.benchmarks.place import Place

ENTRIES = 100_000
SCRIPT = Path(__file__).resolve().parents[1] / "verify_chain.py"
PATIENCE_MS = 600_000
WATCH = """() => {
    window.blocked_ms = 0;
    new PerformanceObserver((list) => {
        for (const each of list.getEntries()) {
            window.blocked_ms = Math.max(window.blocked_ms, each.duration);
        }
    }).observe({ type: "longtask" });
}"""


def measure(place: Place, options: Options) -> Iterator[Figure]:
    """Measure how fast the page verifies, and how long it ever blocks who looks at it."""
    name = f"verifier.html / verify_chain.py, a bundle of {ENTRIES:,} entries"
    chromium = shutil.which("chromium")
    if chromium is None or find_spec("playwright") is None:
        yield skipped(name, "needs chromium and playwright")
        return
    large = place.large(ENTRIES)
    bundle = _export(place, large)
    with _Page(chromium, bundle, large.vkey) as page:
        rounds = 1 if options.quick else 3
        command = [sys.executable, str(SCRIPT), str(bundle), "--key", large.vkey]
        yield compare(name, None, page.rate, lambda: _script_rate(command), rounds=rounds)
        blocked = "the page's longest task while it verifies"
        yield Value(name=blocked, value=page.blocked_ms, unit="ms", aim=200, most=True)


def _export(place: Place, large: LargeLedger) -> Path:
    rebuild(place.dsn, large.row.schema)
    ledger, views = Ledger(large.row, place.settings, place.dsn), None
    ledger.start()
    path = place.home / "large.zip"
    try:
        views = ViewReader(place.dsn, large.row.schema)
        with path.open("w+b") as file:
            export_range(ledger, views, (1, ENTRIES), file, reader="ck_benchbench")
    finally:
        if views is not None:
            views.close()
        ledger.close()
    return path


def _script_rate(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return ENTRIES / (time.perf_counter() - started)


class _Page:
    """The page in Chromium, with a bundle chosen and a key filled in."""

    def __init__(self, chromium: str, bundle: Path, vkey: str) -> None:
        self._chromium, self._bundle, self._vkey = chromium, bundle, vkey
        self.blocked_ms = 0.0
        """The longest that the page's own thread was busy at a time."""

    def __enter__(self) -> Self:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 - for tests and this only

        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        self._playwright = sync_playwright().start()
        launch = self._playwright.chromium.launch
        self._browser = launch(executable_path=self._chromium, args=flags)
        self._page = self._browser.new_page()
        self._page.set_default_timeout(PATIENCE_MS)
        self._page.goto(Path(str(VERIFIER_PAGE)).as_uri())
        self._page.fill("#keys", self._vkey)
        self._page.evaluate(WATCH)
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.close()
        self._playwright.stop()

    def rate(self) -> float:
        """Give entries a second of one verification."""
        self._page.set_input_files("#file", self._bundle)
        started = time.perf_counter()
        self._page.click("#verify")
        self._page.wait_for_selector("#result:not([hidden])")
        seconds = time.perf_counter() - started
        look = self._page.get_attribute("#result", "class") or ""
        if "verified" not in look:
            raise SystemExit(f"the page says: {self._page.inner_text('#result')}")
        self.blocked_ms = max(self.blocked_ms, float(self._page.evaluate("window.blocked_ms")))
        return ENTRIES / seconds
