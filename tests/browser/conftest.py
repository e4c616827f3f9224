from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.browser.support import CHROMIUM, Chromium

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.browser.support import Desk


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """Start Chromium; skip where there is none, but not in CI."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is missing")
        pytest.skip("needs chromium")
    made = Chromium()
    yield made
    made.close()


@pytest.fixture
def open_page(chromium: Chromium) -> Iterator[Callable[..., Desk]]:
    """Open pages that are closed, and held to have kept quiet, after the test."""
    desks: list[Desk] = []

    def open_one(*place: str, **options: str) -> Desk:
        desks.append(chromium.open(*place, **options))
        return desks[-1]

    yield open_one
    for desk in desks:
        desk.close()


@pytest.fixture(scope="module")
def one_desk(chromium: Chromium) -> Iterator[Desk]:
    """Open the page from its file, in English, for one bundle after the other."""
    made = chromium.open()
    yield made
    made.close()


@pytest.fixture
def desk(one_desk: Desk) -> Iterator[Desk]:
    """Give that page, and hold it to have kept quiet."""
    yield one_desk
    one_desk.assert_quiet()
