"""The page as a running service hands it out, on bundles that the service made."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from api.routes.verifier import policy
from tests.browser.bundles import vc, write
from tests.browser.support import PAGE
from tests.http.support import Running, event, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.browser.support import Desk

SUBJECT = "crm:浏览器-1"


@pytest.fixture(scope="module")
def service(new_database: Callable[[], str]) -> Iterator[Running]:
    """Serve a ledger with a few events."""
    with running(new_database()) as found:
        for number in range(12):
            data = {
                "actor": {"id": f"王{number % 2}"},
                "fields": ["phone"],
                "activity": "support-desk",
                "note": f"秘密 {number}",
            }
            kind = "record.updated" if number % 4 == 3 else "record.accessed"
            found.record(event(type=kind, subject=SUBJECT if number % 3 else "crm:X", data=data))
        found.wait_for_views()
        yield found


def export(service: Running, folder: Path, question: dict[str, Any]) -> Path:
    answer = service.ask("exports", question)
    assert answer.status_code == 200, answer.text
    path = folder / "bundle.zip"
    path.write_bytes(answer.content)
    return path


def test_the_page_is_handed_out_to_anybody_under_a_strict_policy(service: Running) -> None:
    answer = service.client.get("/verifier.html")
    assert answer.content == PAGE.read_bytes()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    stated = answer.headers["content-security-policy"]
    assert stated == policy(PAGE.read_text(encoding="utf-8"))
    assert stated.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in stated
    assert answer.headers["x-content-type-options"] == "nosniff"


QUESTIONS: list[dict[str, Any]] = [
    {"from": 1, "to": 13},
    {"from": 4, "to": 9},
    {"subject": SUBJECT},
]


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_a_bundle_of_the_service_is_verified_on_its_own_page(
    service: Running,
    open_page: Callable[..., Desk],
    tmp_path: Path,
    question: dict[str, Any],
) -> None:
    path = export(service, tmp_path, question)
    key = service.open.ledger.keyring.verifier_key()
    note = service.get("checkpoint").text
    desk = open_page(f"{service.url}/verifier.html")
    verdict = desk.judge(path, keys=key, checkpoint=note)
    assert (verdict["exit_code"], verdict["findings"]) == (0, [])
    expected = vc.verify_bundle(path, vc.Trust(keys=(vc.parse_key(key),)))
    assert verdict["completeness"] == expected.completeness
    assert verdict["counts"] == expected.counts
    desk.do(lambda page: page.fill("#checkpoint", ""))
    assert desk.judge(path, keys="")["verdict"] == "consistent with itself"


def test_the_page_in_a_bundle_is_the_services_and_judges_it_from_a_disk(
    service: Running, open_page: Callable[..., Desk], tmp_path: Path
) -> None:
    path = export(service, tmp_path, QUESTIONS[0])
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert files["verifier.html"] == service.client.get("/verifier.html").content
    page = tmp_path / "verifier.html"
    page.write_bytes(files["verifier.html"])
    desk = open_page(page.as_uri(), locale="zh-CN")
    key = service.open.ledger.keyring.verifier_key()
    assert desk.judge(path, keys=key)["exit_code"] == 0
    assert desk.text("#verdict") == "已验证"
    files["entries.jsonl"] = files["entries.jsonl"].replace(b"phone", b"phony", 1)
    verdict = desk.judge(write(tmp_path / "altered.zip", files), keys=key)
    assert (verdict["exit_code"], verdict["first_bad"]["seq"]) == (1, 2)


def test_a_filtered_bundle_of_the_service_is_verified(
    service: Running, open_page: Callable[..., Desk], tmp_path: Path
) -> None:
    question = {"from": 1, "to": 13, "accesses": {"type": "record.accessed"}}
    path = export(service, tmp_path, question)
    key = service.open.ledger.keyring.verifier_key()
    desk = open_page(f"{service.url}/verifier.html")
    verdict = desk.judge(path, keys=key)
    assert verdict["exit_code"] == 0
    assert verdict["completeness"].startswith("asserted")
    assert verdict["counts"]["entries"] == 9
