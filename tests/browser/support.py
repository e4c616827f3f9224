"""Drive a real Chromium that holds the verifier's page."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from playwright.sync_api import sync_playwright

from tests.browser.bundles import ROOT, verifier_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser, Page

Answer = TypeVar("Answer")

PAGE = ROOT / "projections" / "exports" / "verifier.html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    *(["--no-sandbox"] if os.geteuid() == 0 else []),
]
PATIENCE_MS = 60_000
FILL = """(fields) => {
    document.getElementById("more").open = true;
    for (const [name, text] of Object.entries(fields)) document.getElementById(name).value = text;
}"""


class Chromium:
    """A browser in a thread of its own: its event loop must not be found by other tests."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chromium")
        self._browser: Browser = self.do(self._launch)

    def _launch(self) -> Browser:
        self._playwright = sync_playwright().start()
        return self._playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)

    def do(self, work: Callable[[], Answer]) -> Answer:
        """Do something where the browser lives."""
        return self._thread.submit(work).result()

    def close(self) -> None:
        """End the browser."""

        def end() -> None:
            self._browser.close()
            self._playwright.stop()

        self.do(end)
        self._thread.shutdown()

    def open(self, url: str = PAGE.as_uri(), *, locale: str = "en-GB", **options: Any) -> Desk:
        """Open the page in a fresh context and note all that it does."""

        def begin() -> Desk:
            context = self._browser.new_context(locale=locale, **options)
            context.set_default_timeout(PATIENCE_MS)
            page = context.new_page()
            desk = Desk(chromium=self, page=page, url=url)
            context.on("request", lambda request: desk.requests.append(request.url))
            page.on("console", lambda message: desk.complaints.append(message.text))
            page.on("pageerror", lambda error: desk.complaints.append(str(error)))
            page.on("dialog", lambda dialog: desk.complaints.append(f"dialog {dialog.message}"))
            page.goto(url)
            return desk

        return self.do(begin)


@dataclass(kw_only=True)
class Desk:
    """The page as somebody has it before them."""

    chromium: Chromium
    page: Page
    url: str
    requests: list[str] = field(default_factory=list)
    """Every request but the page's own script's."""
    complaints: list[str] = field(default_factory=list)
    """What the console showed, errors and violations of the policy among it."""

    def do(self, work: Callable[[Page], Answer]) -> Answer:
        """Do something with the page."""
        return self.chromium.do(lambda: work(self.page))

    def evaluate(self, script: str, given: Any = None) -> Any:
        """Run one of the page's own functions."""
        return self.do(lambda page: page.evaluate(script, given))

    def give(self, path: Path, **fields: str) -> None:
        """Choose a file and fill in fields."""

        def fill(page: Page) -> None:
            page.set_input_files("#file", path)
            page.evaluate(FILL, fields)

        self.do(fill)

    def start(self) -> None:
        """Press the button."""
        self.do(lambda page: page.click("#verify"))

    def judge(self, path: Path, *, keys: str | None = None, **fields: str) -> dict[str, Any]:
        """Verify a bundle; give the verdict that the page saves."""
        given = dict.fromkeys(("checkpoint", "attestation", "attestor", "disclosures"), "")
        self.give(path, keys=verifier_key() if keys is None else keys, **(given | fields))
        self.start()
        return self.verdict()

    def verdict(self) -> dict[str, Any]:
        """Wait for the verdict, and save it."""

        def wait(page: Page) -> dict[str, Any]:
            page.wait_for_selector("#result:not([hidden]), #trouble:not([hidden])")
            trouble = page.text_content("#trouble") or ""
            if page.is_hidden("#result"):
                return {"exit_code": 2, "usage": trouble}
            with page.expect_download() as saved, tempfile.TemporaryDirectory() as folder:
                page.click("#save")
                path = Path(folder) / "verdict.json"
                saved.value.save_as(path)
                found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                return found

        return self.do(wait)

    def text(self, selector: str) -> str:
        """Give what stands somewhere, as shown."""
        return self.do(lambda page: page.inner_text(selector))

    def close(self) -> None:
        """Close the page; fail if it did anything but be there."""
        self.do(lambda page: page.context.close())
        self.assert_quiet()

    def assert_quiet(self) -> None:
        """Fail if the page asked for anything, or the browser complained of it."""
        assert self.complaints == [], self.complaints
        assert {url for url in self.requests if not url.startswith("blob:")} <= {self.url}
