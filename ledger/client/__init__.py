"""A client for services that emit events: nothing is lost, nothing is numbered twice.

::

    from ledger.client import Client

    ledger = Client(
        "http://127.0.0.1:8420", "customers",
        key_file="customers.emitter", source="crm", outbox="outbox.sqlite",
    )
    ledger.emit("record.accessed", "crm:C-10023", actor="e0117", fields=["phone"])

What `emit` promises: the event is in memory, in bounds that are stated (`Limits`), and past them
it raises. Once its ticket says *stored* the event is in the outbox, flushed to the disk,
and survives a kill; it is sent until the ledger acknowledges or refuses it. What a power cut or
a kill can take is only what was emitted in the last milliseconds and not waited for.
"""

from ledger.client.asgi import Exchanged, RecordingMiddleware
from ledger.client.asynchronous import AsyncClient
from ledger.client.client import Client
from ledger.client.decorator import Call, recorded
from ledger.client.health import Health, SetAside, Trouble
from ledger.client.limits import Limits
from ledger.client.receipts import Entry, Receipt
from ledger.client.reconciling import Reconciliation
from ledger.client.ticket import Ticket

__all__ = [
    "AsyncClient",
    "Call",
    "Client",
    "Entry",
    "Exchanged",
    "Health",
    "Limits",
    "Receipt",
    "Reconciliation",
    "RecordingMiddleware",
    "SetAside",
    "Ticket",
    "Trouble",
    "recorded",
]
