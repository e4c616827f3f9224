"""The library's own contract for recorders, kept by ours on both PostgreSQL versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from eventsourcing.persistence import StoredEvent
from eventsourcing.tests.persistence import (
    AggregateRecorderTestCase,
    ApplicationRecorderTestCase,
    NonInterleavingNotificationIDsBaseCase,
)

from ledger.keys.keyring import make_keyring
from ledger.recorder import LedgerRecorder
from ledger.service import open_datastore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.ledgers import Place


class _OnFreshLedger:
    place: Place
    place_fixture = "place"
    _open: list[LedgerRecorder]

    @pytest.fixture(autouse=True)
    def _fresh(self, request: pytest.FixtureRequest) -> Iterator[None]:
        self.place = request.getfixturevalue(self.place_fixture)
        self._open = []
        yield
        for recorder in self._open:
            recorder.close()
            recorder.datastore.close()

    def create_recorder(self) -> Any:
        datastore = open_datastore(self.place.dsn, self.place.row.schema)
        recorder = self.recorder_class(datastore, keyring=make_keyring(self.place.row.origin))
        self._open.append(recorder)
        return recorder

    recorder_class: type[LedgerRecorder] = LedgerRecorder


class TestApplicationRecorder(_OnFreshLedger, ApplicationRecorderTestCase[LedgerRecorder]):
    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()

    test_performance = None  # speed is scripts/bench's question


class TestApplicationRecorderOn15(TestApplicationRecorder):
    place_fixture = "place_15"


class TestIdsDoNotInterleave(_OnFreshLedger, NonInterleavingNotificationIDsBaseCase):
    pass


class TestIdsDoNotInterleaveOn15(TestIdsDoNotInterleave):
    place_fixture = "place_15"


class _AsAggregateRecorder(LedgerRecorder):
    """The aggregate suite wants no positions back; nothing else differs."""

    def insert_events(self, stored_events: Any, **kwargs: Any) -> None:
        super().insert_events(stored_events, **kwargs)


class TestAggregateRecorder(_OnFreshLedger, AggregateRecorderTestCase):
    recorder_class = _AsAggregateRecorder

    test_performance = None  # speed is scripts/bench's question


class TestAggregateRecorderOn15(TestAggregateRecorder):
    place_fixture = "place_15"


def test_states_come_back_byte_for_byte(place: Place) -> None:
    from uuid import uuid4

    recorder = place.open().recorder
    states = [
        b'{"a":1}',
        b'{"a": 1}',
        b'{"a":"\\u4e2d\xe4\xb8\xad"}',
        b'{"event":{"state":{"stream_kind":"record"}}}',
        b'["not an object"]',
        b"\x00\xff not text",
        b"",
        b'{"a":1,"a":2}',
        b'{"deep":' + b"[" * 40 + b"]" * 40 + b"}",
    ]
    stream = uuid4()
    stored = [StoredEvent(stream, n, 'to"pic\\中', s) for n, s in enumerate(states, 1)]
    recorder.insert_events(stored)
    assert list(recorder.select_events(stream)) == stored
