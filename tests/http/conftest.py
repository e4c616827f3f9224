from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.http.support import Running, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def service(new_database: Callable[[], str]) -> Iterator[Running]:
    """Serve two ledgers for the tests of one module."""
    with running(new_database()) as found:
        yield found
