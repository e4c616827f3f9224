"""Play the company's month: what each customer's record and the company itself go through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scripts.demo_ledger import people
from scripts.demo_ledger.month import APP, DESK, OFFICE, PROFILE, ROTA, Month, digest

if TYPE_CHECKING:
    from scripts.demo_ledger.month import Event

CUSTOMERS = len(people.CUSTOMERS)
HERO = 0
"""Number of the customer whose record has seen most."""


def play(seed: int) -> list[Event]:
    """Give the month of a seed, in the order of time."""
    month = Month(seed)
    _open_month(month)
    for number in range(CUSTOMERS):
        _sign_up(month, number)
        _serve(month, number)
        if number % 4 == HERO % 4:
            _share(month, number)
        if number % 5 == HERO % 5:
            _request(month, number)
        if number % 8 == 3:
            _withdraw(month, number)
        if number % 10 == 7:
            _erase(month, number)
    _close_month(month)
    return month.events()


def _sign_up(month: Month, number: int) -> None:
    about, day = month.subject(number), 1.35 + number % 6
    notice, consent = month.ref("N", number), month.ref("K", number)
    month.add(
        "notice.delivered",
        day=day,
        source=APP,
        by="app",
        actor_kind="service",
        about=about,
        kind="collection",
        channel="app",
        content_sha256=digest("隐私政策 v3"),
        delivery_status="acknowledged",
        notice_ref=notice,
    )
    month.add(
        "consent.given",
        day=day + 0.001,
        source=APP,
        by=about,
        actor_kind="customer",
        about=about,
        purposes=["service", "marketing"] if number % 2 else ["service", "marketing", "transfer"],
        kind="general",
        notice_ref=notice,
        consent_ref=consent,
    )
    month.add(
        "record.collected",
        day=day + 0.002,
        source=APP,
        by="app",
        actor_kind="service",
        about=about,
        fields=PROFILE,
        source_channel=("mini_program", "app", "phone")[number % 3],
        notice_ref=notice,
        consent_ref=consent,
        legal_basis="consent",
        activity="customer-sign-up",
        purpose="service",
        data_categories=["identity", "contact", "address", "household_need"],
        personal=_profile(month, number),
    )


def _profile(month: Month, number: int) -> dict[str, Any]:
    street = month.random.choice(people.STREETS)
    return {
        "name": people.CUSTOMERS[number],
        "phone": f"1390000{month.random.randrange(10_000):04}",
        "address": f"江苏省徐州市{street}{month.random.randrange(1, 200)}号",
        "household_need": month.random.choice(people.NEEDS),
    }


def _serve(month: Month, number: int) -> None:
    about = month.subject(number)
    for order in range(month.random.randrange(3, 7)):
        day = 8.3 + order * 3.4 + month.random.random()
        ticket = month.ref("T", number * 10 + order)
        month.add(
            "record.accessed",
            day=day,
            source=DESK,
            by=month.random.choice(people.FRONT),
            about=about,
            fields=month.random.choice((["phone"], ["name", "phone"], PROFILE)),
            reason_ref=ticket,
            grant_ref=month.ref("G", 0),
            masked=bool(order % 2),
            activity="take-orders",
            purpose="service",
            legal_basis="contract",
            note=month.random.choice(people.NOTES),
            origin={"ip": f"10.8.0.{month.random.randrange(2, 250)}", "system": "前台"},
        )
        month.add(
            "record.used",
            day=day + 0.05,
            source=ROTA,
            by="rota",
            actor_kind="system",
            about=about,
            operation="assign-helper",
            automated_decision=True,
            effect="minor",
            human_review=True,
            activity="plan-visits",
            purpose="service",
        )
        if order % 2:
            _move(month, number, day + 0.1, ticket)


def _move(month: Month, number: int, day: float, ticket: str) -> None:
    old, new = month.random.sample(people.STREETS, 2)
    month.add(
        "record.updated",
        day=day,
        source=DESK,
        by=month.random.choice(people.CARE),
        about=month.subject(number),
        fields=["address"],
        reason_ref=ticket,
        activity="keep-records-true",
        purpose="customer_care",
        personal={"address": {"from": f"徐州市{old}", "to": f"徐州市{new}"}},
    )


def _share(month: Month, number: int) -> None:
    about, share = month.subject(number), month.ref("SH", number)
    shared = month.add(
        "record.shared",
        day=12.4,
        source=ROTA,
        by=month.random.choice(people.DISPATCH),
        about=about,
        recipient={"id": "P-7", "kind": "processor", "name": "平安保洁服务部 (𠮷)"},
        fields=["name", "address"],
        masking="partial_mask",
        agreement_ref=month.ref("AG", 1),
        channel="api_tls",
        assessment_ref=month.ref("PIA", 1),
        consent_ref=month.ref("K", number),
        return_due="2025-11-28",
        share_ref=share,
        activity="subcontract-visits",
        purpose="service",
    )
    if number % 8 == HERO % 8:
        month.add(
            "share.closed",
            day=26.2,
            source=ROTA,
            by=people.DISPATCH[0],
            about=about,
            share_ref=shared["data"]["share_ref"],
            result="deleted",
            proof_sha256=digest(f"proof {share}"),
        )


def _request(month: Month, number: int) -> None:
    about, request = month.subject(number), month.ref("R", number)
    common: dict[str, Any] = {"source": OFFICE, "about": about, "by": people.OFFICE[1]}
    kind = ("access", "correct", "complaint", "restrict")[number // 5 % 4]
    month.add(
        "request.received",
        day=16.5,
        **common,
        kind=kind,
        due="2025-12-01",
        request_ref=request,
        channel="phone",
        handler=people.CARE[0],
        note=people.NOTES[number % len(people.NOTES)],
    )
    held = {"hold_ref": month.ref("H", number), "request_ref": request}
    month.add("record.restricted", day=17.5, **common, **held, state="on", ground="dispute")
    month.add("record.restricted", day=22.5, **common, **held, state="off", ground="dispute")
    month.add(
        "request.resolved",
        day=22.6,
        **common,
        request_ref=request,
        result="fulfilled",
        handler=people.CARE[0],
    )


def _withdraw(month: Month, number: int) -> None:
    about = month.subject(number)
    month.add(
        "consent.withdrawn",
        day=20.1,
        source=APP,
        by=about,
        actor_kind="customer",
        about=about,
        purposes=["marketing"],
        status="withdrawn",
        channel="app",
        consent_ref=month.ref("K", number),
    )
    month.add(
        "record.deidentified",
        day=21.0,
        source=OFFICE,
        by="warehouse",
        actor_kind="system",
        about=about,
        method="generalise",
        reversible=False,
        scope="copies",
    )


def _erase(month: Month, number: int) -> None:
    month.add(
        "record.erased",
        day=28.6,
        source=OFFICE,
        by=people.OFFICE[0],
        about=month.subject(number),
        ground="subject_request",
        scope="whole",
        locations=["crm", "报表库"],
        request_ref=month.ref("E", number),
    )


def _open_month(month: Month) -> None:
    chief, officer = people.OFFICE
    agreed: dict[str, Any] = {"day": 0.4, "source": OFFICE, "by": officer, "status": "active"}
    for number, kind in enumerate(("nda", "processing")):
        month.add(
            "agreement.recorded",
            **agreed,
            kind=kind,
            parties=["P-7"],
            valid_from="2025-11-01",
            valid_to="2026-10-31",
            document_sha256=digest(kind),
            scope={"fields": ["name", "address"]},
            agreement_ref=month.ref("AG", number),
        )
    month.add(
        "agreement.recorded",
        **agreed,
        kind="employee_nda",
        persons=[*people.FRONT, *people.DISPATCH],
        valid_to="2026-10-31",
        document_sha256=digest("保密协议"),
        scope={"roles": ["front-desk", "dispatch"]},
        agreement_ref=month.ref("AG", 2),
    )
    for number, who in enumerate(people.FRONT):
        month.add(
            "access.granted",
            day=0.5,
            source=OFFICE,
            by=chief,
            grantee=who,
            role="front-desk",
            scope={"fields": PROFILE},
            expires="2025-12-31",
            approval_ref=month.ref("OA", number),
            grant_ref=month.ref("G", number),
        )


def _close_month(month: Month) -> None:
    chief, officer = people.OFFICE
    exported = [month.subject(number) for number in range(0, CUSTOMERS, 2)]
    month.add(
        "record.exported",
        day=24.4,
        source=OFFICE,
        by=chief,
        about=exported,
        fields=["name", "phone"],
        format="xlsx",
        destination="财务部共享盘",
        file_sha256=digest("回访名单.xlsx"),
        masking="partial_mask",
        activity="call-back-list",
        purpose="customer_care",
    )
    month.add(
        "record.linked",
        day=25.1,
        source=OFFICE,
        by=people.CARE[1],
        about=month.subject(HERO),
        other=month.subject(26),
        ground="same_person",
    )
    month.add(
        "incident.opened",
        day=26.7,
        source=OFFICE,
        by=officer,
        kind="misdelivery",
        discovered_at=month.at(26.6).isoformat(),
        severity="low",
        affected={"count": 1},
        incident_ref=month.ref("I", 1),
        note="回访短信发错号码，已电话致歉。",
    )
    revoked = {"grant_ref": month.ref("G", 2), "reason_ref": month.ref("HR", 1)}
    month.add("access.revoked", day=27.3, source=OFFICE, by=chief, **revoked)
    for number, kind in enumerate(("training", "backup", "restore_test", "log_review", "pipia")):
        month.add(
            "control.performed",
            day=27.5 + number * 0.3,
            source=OFFICE,
            by=officer,
            kind=kind,
            result="passed",
            scope={"systems": ["crm"]},
            document_sha256=digest(kind),
            next_due="2025-12-31",
        )
