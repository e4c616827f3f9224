"""The page itself: what it says in both languages, what it keeps to itself, how it is used."""

from __future__ import annotations

import json
import re
import threading
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from api.routes.verifier import policy
from tests.browser.bundles import (
    ACTORS,
    AUDITOR,
    AUDITOR_NAME,
    ORIGIN,
    RECORDS,
    Log,
    attestation,
    bundle,
    disclosure,
    manifest_of,
    sealing,
    sign,
    signed,
    sound,
    verifier_key,
    write,
)
from tests.browser.support import PAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.browser.support import Desk

SOURCE = PAGE.read_text(encoding="utf-8")
(SCRIPT,) = re.findall("<script>(.*?)</script>", SOURCE, re.DOTALL)
MARKUP = SOURCE.replace(SCRIPT, "")
CHINESE = re.compile("[\u4e00-\u9fff]")
CHOSEN: dict[str, Any] = {"kind": "accesses", "from": 5, "to": 55, "filter": {"actor": ACTORS[1]}}


def altered() -> dict[str, bytes]:
    """Give a bundle with one changed entry."""
    files = bundle()
    return files | {"entries.jsonl": files["entries.jsonl"].replace(b"phone", b"phony", 5)}


# -- two languages --


def said() -> set[str]:
    """Give every sentence that the script or the page says, in English."""
    string = r'"((?:[^"\\]|\\.)*)"'
    found = set(re.findall(rf"\b(?:msg|t|row|list)\({string}", SCRIPT))
    found |= {" ".join(text.split()) for text in re.findall(r"data-say>([^<]*)<", MARKUP)}
    found |= {"altered", "deleted", "inserted", "reordered", "truncated", "rewritten"}
    return {json.loads(f'"{each}"') for each in found}


def table() -> dict[str, str]:
    """Give the script's one table of Chinese."""
    rows = SCRIPT.partition("const ZH = {")[2].partition("\n};")[0]
    pairs = re.findall(r'"((?:[^"\\]|\\.)*)":\s*"((?:[^"\\]|\\.)*)"', rows)
    assert len({key for key, _ in pairs}) == len(pairs), "a sentence stands twice"
    return dict(pairs)


def test_every_sentence_has_its_chinese_and_none_is_left_over() -> None:
    assert set(table()) == said()


def test_a_translation_keeps_every_place_that_is_filled_in() -> None:
    for english, chinese in table().items():
        places = re.findall(r"\{\w+\}", english)
        assert sorted(places) == sorted(re.findall(r"\{\w+\}", chinese)), english
        assert CHINESE.search(chinese) or chinese.replace("：", ": ") == english


@pytest.mark.parametrize(
    ("locale", "lang", "title"),
    [
        ("zh-CN", "zh-Hans", "校验证据包"),
        ("zh-TW", "zh-Hans", "校验证据包"),
        ("en-GB", "en", "Verify an evidence bundle"),
        ("de-DE", "en", "Verify an evidence bundle"),
    ],
)
def test_the_page_speaks_the_browsers_language(
    open_page: Callable[..., Desk], locale: str, lang: str, title: str
) -> None:
    desk = open_page(locale=locale)
    assert desk.text("h1") == title
    assert desk.do(lambda page: page.get_attribute("html", "lang")) == lang


VERDICTS: list[tuple[str, dict[str, bytes], str, str, str]] = [
    ("verified", bundle(), verifier_key(), "verified", "已验证"),
    ("altered", altered(), verifier_key(), "tampered: altered", "已被篡改：被改动"),
    ("no key", bundle(), "", "consistent with itself", "仅自身一致（未验证）"),
    (
        "bomb",
        bundle() | {"rows.csv": bytes(2**24)},
        verifier_key(),
        "not everything could be checked",
        "未能全部检查",
    ),
]


@pytest.mark.parametrize("case", VERDICTS, ids=lambda case: str(case[0]))
def test_a_verdict_is_said_in_either_language_and_turned_without_a_new_run(
    desk: Desk, tmp_path: Path, case: tuple[str, dict[str, bytes], str, str, str]
) -> None:
    name, files, key, english, chinese = case
    desk.judge(write(tmp_path / f"{name}.zip", files), keys=key)

    def verdict(page: Page) -> str:
        return page.text_content("#verdict") or ""

    assert desk.do(verdict) == english
    desk.do(lambda page: page.click("#language"))
    try:
        assert desk.do(verdict) == chinese
        shown = desk.do(lambda page: page.locator("#facts dt, #steps li, h3").all_inner_texts())
        assert all(CHINESE.search(each) for each in shown if each.strip())
    finally:
        desk.do(lambda page: page.click("#language"))
    assert desk.do(verdict) == english


def test_consistent_with_itself_is_said_to_be_less_than_verified(
    desk: Desk, tmp_path: Path
) -> None:
    desk.judge(write(tmp_path / "bundle.zip", bundle()), keys="")
    shown = desk.text("#result")
    assert "This is less than verified" in shown
    assert "who signed: give the ledger's key" in shown
    assert "signature not checked" in shown
    assert desk.text("#sign") == "≈"


# -- what comes from a bundle stays text --

EVIL = "<img src=x onerror=\"document.title='evil'\"><script>document.title='evil'</script>"


def test_markup_in_a_bundle_is_shown_and_not_obeyed(desk: Desk, tmp_path: Path) -> None:
    log = Log()
    opened = disclosure("x" * 22, f"data.{EVIL}", EVIL)
    log.append(
        RECORDS[0], {"id": EVIL, "type": EVIL, "data": {EVIL: EVIL}}, {"~1": sealing(opened)}
    )
    files = bundle({"kind": "range", "from": 1, "to": 1}, log=log)
    claims = {"masking": EVIL, "report": {EVIL: EVIL}, "exclusions": [EVIL], "gaps": "\u202eevil"}
    path = write(
        tmp_path / f"{EVIL.replace('/', '')}.zip", signed(files, manifest_of(files) | claims)
    )
    verdict = desk.judge(path, disclosures=opened)
    assert verdict["exit_code"] == 0
    desk.do(lambda page: page.click("#states summary"))
    shown = desk.text("#result")
    assert shown.count("<img src=x") > 4
    assert "\\u202eevil" in shown
    assert desk.do(lambda page: page.locator("#result img, #result script").count()) == 0
    assert "evil" not in desk.do(lambda page: page.title())
    other = signed(
        files, manifest_of(files) | {"ledger": EVIL, "scope": {"kind": "range", "from": EVIL}}
    )
    assert desk.judge(write(tmp_path / "other.zip", other), keys="")["exit_code"] == 1
    assert EVIL in desk.text("#facts")


def test_an_attestors_name_is_text_too(desk: Desk, tmp_path: Path) -> None:
    name = f"<b>{AUDITOR_NAME}</b>"
    files = bundle(CHOSEN)
    text = attestation(files).rpartition("\n\n")[0] + "\n"
    given = {"attestation": sign(text, AUDITOR, name), "attestor": verifier_key(AUDITOR, name)}
    desk.judge(write(tmp_path / "bundle.zip", files), **given)
    assert f"proved: {name} replayed" in desk.text("#facts")


# -- nothing leaves --


class Parts(HTMLParser):
    """Notes what a page would load, run inline or style inline."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"src", "href", "action", "data", "srcset"}:
                self.loads.append(f"{tag} {value}")
            if name.startswith("on") or name == "style":
                self.inline.append(f"{tag} {name}")


def test_the_page_is_one_file_that_loads_nothing() -> None:
    parts = Parts()
    parts.feed(MARKUP)
    assert parts.loads == ["link data:,"]
    assert parts.inline == []
    assert "http://" not in SCRIPT
    assert "https://" not in SCRIPT
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", SCRIPT)
    assert not re.search(r"\bfetch\(|XMLHttpRequest|WebSocket|sendBeacon|localStorage", SCRIPT)


def test_the_policy_in_the_page_is_that_of_its_own_script_and_style() -> None:
    (stated,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', MARKUP)
    served = policy(SOURCE).split("; ")
    only_in_headers = {
        "frame-ancestors 'none'",
        "sandbox allow-scripts allow-downloads allow-modals",
    }
    assert stated.split("; ") == [each for each in served if each not in only_in_headers]


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """Listen on this machine; give the address and what was asked for."""
    asked: list[str] = []

    class Ear(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Ear)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


ESCAPES = """async (url) => {
    const refused = new Set();
    const note = (event) => refused.add(event.effectiveDirective);
    document.addEventListener("securitypolicyviolation", note);
    await fetch(url + "/fetch").catch(() => {});
    navigator.sendBeacon(url + "/beacon", "secret");
    await new Promise((done) => {
        const image = new Image();
        image.onload = image.onerror = done;
        image.src = url + "/image";
    });
    const form = document.createElement("form");
    form.action = url + "/form";
    form.target = "_blank";
    document.body.append(form);
    form.submit();
    const worker = new Blob([`fetch("${url}/worker")`], { type: "text/javascript" });
    try { new Worker(URL.createObjectURL(worker)); } catch { refused.add("a worker of its own"); }
    try { document.body.innerHTML = "<p>"; } catch { refused.add("markup"); }
    try {
        const script = document.createElement("script");
        script.append("document.title = 'evil'");
        document.body.append(script);
    } catch { /* refused as well */ }
    await new Promise((done) => setTimeout(done, 300));
    return { refused: [...refused], title: document.title };
}"""


def test_the_policy_lets_nothing_out_and_no_other_script_in(
    open_page: Callable[..., Desk], listener: tuple[str, list[str]]
) -> None:
    url, asked = listener
    desk = open_page()
    found = desk.evaluate(ESCAPES, url)
    assert asked == []
    wanted = {"connect-src", "img-src", "form-action", "a worker of its own", "markup"}
    assert wanted <= set(found["refused"])
    assert "evil" not in found["title"]
    desk.complaints.clear()
    desk.requests[:] = [each for each in desk.requests if not each.startswith(url)]


# -- use --


def test_a_bundle_is_verified_with_the_keyboard_alone(
    open_page: Callable[..., Desk], tmp_path: Path
) -> None:
    desk = open_page()
    path = write(tmp_path / "bundle.zip", bundle())

    def use(page: Page) -> str:
        for _ in range(2):
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "file"
        page.set_input_files("#file", path)
        page.keyboard.press("Tab")
        page.keyboard.type(verifier_key())
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector("#result:not([hidden])")
        return str(page.evaluate("document.activeElement.id"))

    assert desk.do(use) == "verdict"
    assert desk.text("#verdict") == "VERIFIED"


def test_a_dropped_file_is_taken_wherever_it_falls(desk: Desk, tmp_path: Path) -> None:
    raw = write(tmp_path / "bundle.zip", bundle()).read_bytes()
    script = """(bytes) => {
        const data = new DataTransfer();
        data.items.add(new File([Uint8Array.from(bytes)], "dropped.zip"));
        const given = { dataTransfer: data, bubbles: true, cancelable: true };
        document.body.dispatchEvent(new DragEvent("drop", given));
    }"""
    desk.evaluate(script, [*raw])
    assert "dropped.zip" in desk.text("#chosen")
    desk.start()
    assert desk.verdict()["file"] == "dropped.zip"


def test_nothing_chosen_is_told_and_not_judged(open_page: Callable[..., Desk]) -> None:
    desk = open_page()
    desk.start()
    assert desk.verdict() == {"exit_code": 2, "usage": "Choose a bundle first."}


def test_a_verdict_goes_when_another_file_is_chosen(desk: Desk, tmp_path: Path) -> None:
    desk.judge(write(tmp_path / "bundle.zip", bundle()))
    desk.give(write(tmp_path / "other.zip", altered()))
    assert desk.do(lambda page: page.is_hidden("#result"))


def test_a_file_changed_after_it_was_chosen_is_not_judged(desk: Desk, tmp_path: Path) -> None:
    path = write(tmp_path / "bundle.zip", bundle())
    desk.give(path, keys=verifier_key())
    path.write_bytes(path.read_bytes() * 2)
    desk.start()
    verdict = desk.verdict()
    assert (verdict["exit_code"], "changed meanwhile" in verdict["reason"]) == (3, True)
    assert desk.judge(write(path, bundle()))["exit_code"] == 0


def test_disclosures_are_read_from_a_file(desk: Desk, tmp_path: Path) -> None:
    lines = tmp_path / "disclosures.txt"
    lines.write_text("one\ntwo\n")

    def use(page: Page) -> str:
        page.evaluate("document.getElementById('more').open = true")
        page.set_input_files("#lines", lines)
        page.wait_for_function("() => document.getElementById('disclosures').value !== ''")
        return page.input_value("#disclosures")

    assert desk.do(use) == "one\ntwo\n"


def test_a_verdict_prints_without_the_form(desk: Desk, tmp_path: Path) -> None:
    desk.judge(write(tmp_path / "bundle.zip", bundle()))
    desk.do(lambda page: page.emulate_media(media="print"))
    try:
        assert desk.do(lambda page: page.is_hidden("#form"))
        assert desk.do(lambda page: page.is_visible("#verdict"))
        assert ORIGIN in desk.text("#facts")
    finally:
        desk.do(lambda page: page.emulate_media(media="screen"))


def test_verdicts_are_told_apart_without_colours(desk: Desk, tmp_path: Path) -> None:
    signs = {}
    for name, files, key, english, _ in VERDICTS:
        desk.judge(write(tmp_path / f"{name}.zip", files), keys=key)
        signs[desk.text("#sign")] = english
    assert len(signs) == len(VERDICTS)


def test_every_field_has_a_name_and_the_verdict_is_announced(desk: Desk) -> None:
    unnamed = desk.evaluate("""() => {
        const fields = [...document.querySelectorAll("input, textarea, button, progress")];
        const isNamed = (each) => each.labels?.length || each.textContent.trim();
        return fields.filter((each) => !isNamed(each)).map((each) => each.id);
    }""")
    assert unnamed == []
    assert desk.do(lambda page: page.get_attribute(".badge", "role")) == "status"
    assert desk.do(lambda page: page.get_attribute("#trouble", "role")) == "alert"


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_runs_over_the_edge_of_a_narrow_screen(
    desk: Desk, tmp_path: Path, width: int
) -> None:
    desk.judge(write(tmp_path / "bundle.zip", altered()))
    desk.do(lambda page: page.set_viewport_size({"width": width, "height": 800}))
    over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert desk.evaluate(over) == 0


# -- a long run --


@pytest.fixture(scope="module")
def long_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bundle that takes a while."""
    size = 20_000
    scope = {"kind": "range", "from": 1, "to": size}
    return write(tmp_path_factory.mktemp("long") / "bundle.zip", bundle(scope, log=sound(size)))


WATCH = """() => {
    window.seen = [];
    window.blocked = 0;
    const look = () => {
        window.seen.push(document.getElementById("progress").value);
        requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
    new PerformanceObserver((list) => {
        for (const each of list.getEntries()) {
            window.blocked = Math.max(window.blocked, each.duration);
        }
    }).observe({ type: "longtask" });
}"""


def test_a_long_run_shows_how_far_it_is_and_never_freezes_the_page(
    desk: Desk, long_bundle: Path
) -> None:
    desk.give(long_bundle, keys=verifier_key())
    desk.evaluate(WATCH)
    desk.start()
    verdict = desk.verdict()
    assert (verdict["exit_code"], verdict["counts"]["entries"]) == (0, 20_000)
    seen = desk.evaluate("window.seen")
    middle = {part for part in seen if 0 < part < 1}
    assert len(middle) >= 2
    assert desk.evaluate("window.blocked") < 200


def test_a_run_is_cancelled_and_another_begun(
    desk: Desk, long_bundle: Path, tmp_path: Path
) -> None:
    desk.give(long_bundle, keys=verifier_key())

    def cancel(page: Page) -> bool:
        page.click("#verify")
        page.wait_for_selector("#running:not([hidden])")
        page.click("#cancel")
        return page.is_hidden("#running") and page.is_hidden("#result")

    assert desk.do(cancel)
    assert desk.judge(write(tmp_path / "bundle.zip", bundle()))["exit_code"] == 0
