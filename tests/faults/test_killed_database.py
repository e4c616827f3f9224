from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from ledger.errors import Unavailable
from tests.faults.standing import assert_each_stands_once, seqs_by_id
from tests.fixtures.ledgers import (
    an_emitter,
    an_event,
    assert_ledger_sound,
    prepare,
    record,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ledger.service import Ledger
    from tests.fixtures.postgres import ClusterFactory


class Load:
    """Emitters with an outbox: each repeats an event until it is acknowledged."""

    def __init__(self, ledger: Ledger, emitters: int) -> None:
        self.receipts: list[dict[str, Any]] = []
        self.refused = 0
        self._ledger = ledger
        self._emitters = emitters
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()

    async def _run(self) -> None:
        await asyncio.gather(*(self._emit(n) for n in range(self._emitters)))

    async def _emit(self, emitter: int) -> None:
        while not self._ending.is_set():
            event = an_event(subject=f"crm:C-{emitter}")
            self.receipts.append(await self._deliver(json.dumps(event).encode()))

    async def _deliver(self, body: bytes) -> dict[str, Any]:
        while True:
            try:
                _, receipt = await self._ledger.ingest(body, an_emitter())
            except Unavailable:
                self.refused += 1
                await asyncio.sleep(0.05)
            else:
                return json.loads(receipt)  # type: ignore[no-any-return]

    def wait_for(self, more: int) -> None:
        wanted = len(self.receipts) + more
        for _ in range(1000):
            if len(self.receipts) >= wanted:
                return
            self._ending.wait(0.02)
        raise AssertionError(f"expected {wanted} receipts, found {len(self.receipts)}")

    def end(self) -> None:
        self._ending.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("give_up_s", [0.0, 10.0])
def test_a_database_killed_in_mid_load_costs_no_acknowledged_entry_and_doubles_none(
    durable_cluster: ClusterFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    give_up_s: float,
):
    monkeypatch.setattr("ledger.recorder.GIVE_UP_S", give_up_s)
    cluster = durable_cluster()
    cluster.start()
    place = prepare(cluster.dsn, tmp_path / "home")
    ledger = place.open()
    load = Load(ledger, emitters=8)
    try:
        for _ in range(2):
            load.wait_for(100)
            cluster.kill()
            cluster.start()
        load.wait_for(100)
    finally:
        load.end()
    assert bool(load.refused) == (give_up_s == 0.0)
    assert ledger.recorder.stopped is None
    assert ledger.recorder.queued == 0
    record(ledger, an_event())
    assert_each_stands_once(place, load.receipts)
    assert {len(seqs) for seqs in seqs_by_id(place).values()} == {1}
    assert_ledger_sound(place)
    place.close(ledger)
