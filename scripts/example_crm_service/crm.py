"""The CRM: four routes over a dictionary, and what of them becomes an event.

Everything that this service had to add for the ledger is marked with `ledger:`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Request

from ledger.client import RecordingMiddleware, recorded

if TYPE_CHECKING:
    from ledger.client import AsyncClient, Exchanged

TYPES = {"GET": "record.accessed", "PATCH": "record.updated", "DELETE": "record.erased"}


def new_customers() -> dict[str, dict[str, str]]:
    """Give the customers that there are at first."""
    return {
        "CRM-1": {"name": "陈静", "phone": "+86 21 5550 0101", "city": "上海"},
        "CRM-2": {"name": "Søren Ågård", "phone": "+45 5550 0102", "city": "Aarhus"},
    }


def make_crm(ledger: AsyncClient) -> FastAPI:
    """Give the service, which records through an open client."""
    app = FastAPI(title="Example CRM")
    app.state.customers = new_customers()
    # ledger: one line. No answer leaves before its event is stored in the outbox.
    app.add_middleware(RecordingMiddleware, client=ledger, events=event_of)

    # ledger: the same for something that isn't a request, or knows more than one.
    @recorded(
        "record.shared",
        client=ledger,
        subject="crm:{customer}",
        actor="{user}",
        fields=["name", "phone"],
        members={"recipient": {"id": "courier", "kind": "processor"}, "activity": "delivery"},
    )
    async def hand_to_courier(customer: str, user: str) -> dict[str, str]:
        found = find(app, customer)
        return {"name": found["name"], "phone": found["phone"], "handed_over_by": user}

    @app.get("/customers/{customer}")
    async def read(request: Request, customer: str, x_user: User) -> dict[str, str]:
        request.state.user = x_user
        found = find(app, customer)
        request.state.fields = sorted(found)
        return found

    @app.patch("/customers/{customer}")
    async def update(
        request: Request, customer: str, x_user: User, changes: dict[str, str]
    ) -> dict[str, str]:
        request.state.user = x_user
        request.state.fields = sorted(changes)
        find(app, customer).update(changes)
        return find(app, customer)

    @app.delete("/customers/{customer}")
    async def erase(request: Request, customer: str, x_user: User) -> dict[str, str]:
        request.state.user = x_user
        find(app, customer)
        del app.state.customers[customer]
        return {}

    @app.post("/customers/{customer}/courier")
    async def ship(customer: str, x_user: User) -> dict[str, str]:
        return await hand_to_courier(customer, x_user)

    return app


User = Annotated[str, Header()]


def find(app: FastAPI, customer: str) -> dict[str, str]:
    """Give a customer's record, or answer 404."""
    found: dict[str, str] | None = app.state.customers.get(customer)
    if found is None:
        raise HTTPException(404)
    return found


def event_of(exchanged: Exchanged) -> dict[str, Any] | None:
    """Say what a request was, in the ledger's terms: who did what to whose record, and why.

    Names of fields are told, values never.
    """
    customer = exchanged.path_params.get("customer")
    event_type = TYPES.get(exchanged.method)
    if customer is None or event_type is None or "user" not in exchanged.state:
        return None
    failed = exchanged.status >= 400
    data: dict[str, Any] = {
        "actor": {"id": exchanged.state["user"]},
        "activity": "customer-care",
        "outcome": "failed" if failed else "success",
    }
    if event_type != "record.erased":
        data["fields"] = exchanged.state.get("fields", ["name"])
    return {"type": event_type, "subject": f"crm:{customer}", "data": data}
