from __future__ import annotations

import json
from typing import Any

import pytest

from ledger.events.taxonomy import (
    TYPES,
    VOCABULARIES,
    EventType,
    Writer,
    clear_sealed_table,
    describe,
    describe_vocabularies,
    find_type,
    nearest_member,
    nearest_type,
    types_for,
)

# Every line of the document's table: type, who writes it, whether it has a subject,
# and the members printed in bold, alternatives joined by "|".
TABLE = """
record.collected S R fields
record.accessed S R fields
record.exported S R fields
record.used S R operation
record.updated S R fields
record.shared SP R recipient.id recipient.kind fields
share.closed SP R share_ref result
record.deidentified S R method
record.restricted SPL R state
record.erased SL R
record.linked SP R other
record.unlinked SP R other
destruction.certified PL R method
consent.given S R purposes
consent.withdrawn S R purposes
notice.delivered S R kind
request.received SP R kind
request.resolved SP R request_ref result
access.granted SP - grantee role
access.revoked SP - grant_ref
agreement.recorded SP - kind parties|persons
policy.published P - kind version content_sha256
approval.requested SPL o action
approval.decided SPL o request_ref decision approver
control.performed SP o kind result
incident.opened SP - kind
incident.updated P - incident_ref stage
incident.reported P - incident_ref to content_sha256|not_notified_reason
audit.opened P - engagement firm
audit.closed P - engagement firm
finding.raised LP o rule|source severity evidence_seqs
finding.updated P o finding_ref status by
transfer.stage_changed PL - transfer_ref from to
transfer.manifest_sealed L - transfer_ref manifest_root count as_of_seq
transfer.received PL - transfer_ref manifest_root count_ok
source.reported S - count last_sequence until
event.corrected SP o target_seq correction
ledger.opened L -
ledger.read L o
ledger.anchored L -
ledger.verified LP -
ledger.key_changed L -
ledger.credential_changed L -
ledger.operated L -
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()]
WRITERS = {"S": Writer.SERVICE, "P": Writer.PERSON, "L": Writer.LEDGER}
SUBJECTS = {"R": "required", "o": "optional", "-": "none"}

# The other members that the table prints for a type.
LISTED = {
    "record.collected": "source_channel notice_ref consent_ref",
    "record.accessed": "reason_ref grant_ref masked",
    "record.exported": "format destination file_sha256 masking",
    "record.used": "automated_decision effect",
    "record.updated": "reason_ref personal.* request_ref",
    "record.shared": "masking agreement_ref channel cross_border.country cross_border.mechanism "
    "cross_border.filing_no assessment_ref consent_ref return_due",
    "share.closed": "proof_sha256",
    "record.deidentified": "reversible scope",
    "record.restricted": "ground hold_ref until",
    "record.erased": "ground scope locations request_ref",
    "record.linked": "ground",
    "record.unlinked": "ground",
    "destruction.certified": "scope_digest operator witness certificate_sha256 media_ids",
    "consent.given": "kind notice_ref expires",
    "consent.withdrawn": "status channel",
    "notice.delivered": "content_sha256 channel delivery_status recipient_named",
    "request.received": "due disputed_seqs",
    "request.resolved": "refusal_reason",
    "access.granted": "scope expires approval_ref reason_ref",
    "access.revoked": "scope expires approval_ref reason_ref",
    "agreement.recorded": "status valid_to document_sha256 scope",
    "policy.published": "effective_from rules",
    "approval.requested": "scope_digest due expires regulator",
    "approval.decided": "scope_digest due expires regulator",
    "control.performed": "person scope document_sha256 score valid_to next_due",
    "incident.opened": "discovered_at severity affected.count affected.digest",
    "incident.updated": "cause measures",
    "audit.opened": "people scope from to legal_ground",
    "audit.closed": "people scope from to legal_ground",
    "finding.raised": "clause explanation",
    "finding.updated": "evidence[].sha256 due verifier decision",
    "transfer.stage_changed": "deal_type party",
    "transfer.manifest_sealed": "categories exclusions batch",
    "transfer.received": "missing extra altered signer",
    "event.corrected": "reason approval_ref",
    "ledger.opened": "origin keys format continues.origin continues.size continues.root",
    "ledger.read": "query rows purpose engagement_ref file_sha256",
    "ledger.anchored": "size root anchor",
    "ledger.verified": "from to verdict rests_on tool_version",
    "ledger.key_changed": "key reason",
    "ledger.credential_changed": "credential change",
    "ledger.operated": "operation detail",
}

CODES = {
    "purpose": "service contract account customer_care marketing credit_risk aml fraud dispute "
    "rights legal security audit due_diligence transfer",
    "legal_basis": "consent separate_consent contract legal_duty emergency public_interest_news "
    "already_public other_law eu:6-1-a eu:6-1-b eu:6-1-c eu:6-1-d eu:6-1-e eu:6-1-f",
    "data_category": "identity contact address household_need service_review transaction contract "
    "account_basic device business_secret credit biometric religion specific_identity health "
    "financial_account location_track minor_u14",
    "fin_level": "C1 C2 C3",
    "recipient_kind": "internal_dept affiliate processor joint_handler independent_handler "
    "transferee adviser auditor regulator court overseas public",
    "destruction_method": "overwrite crypto_erase degauss shred incinerate db_delete third_party "
    "anonymise",
    "masking": "none partial_mask drop generalise tokenise hmac encrypt_only aggregate synthetic",
    "transfer_stage": "draft nda_signed assessed approved diligence noticed manifest_sealed moving "
    "received reconciled seller_destroying certified closed suspended aborted",
    "deal_type": "share asset merger split dissolution bankruptcy",
    "actor_kind": "person service system customer external",
    "outcome": "success denied failed",
}
CODES_AMONG_OTHERS = {
    "request_kind": "access copy correct erase restrict port explain dispute complaint feedback",
    "consent_kind": "general separate written guardian",
    "share_result": "returned deleted expired confirmed",
    "restriction_state": "on off",
    "agreement_kind": "nda processing employee_nda transfer",
    "control_kind": "training drill pipia risk_assessment compliance_check log_review backup "
    "restore_test encryption physical audit_review",
    "operation": "migration restore version_started setting",
}

EVERY_TYPE = pytest.mark.parametrize("event_type", TYPES.values(), ids=list(TYPES))


def test_the_taxonomy_has_the_document_s_types_and_no_others():
    assert list(TYPES) == [row[0] for row in ROWS]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_type_has_its_writers_subject_and_bold_members(row: list[str]):
    name, writers, subject, *bold = row
    event_type = TYPES[name]
    assert event_type.writers == {WRITERS[letter] for letter in writers}
    assert event_type.subject == SUBJECTS[subject]
    single = {path for path in bold if "|" not in path}
    assert set(event_type.required) == single | ({"actor.id"} if writers != "L" else set())
    assert {frozenset(group) for group in event_type.required_any} == {
        frozenset(path.split("|")) for path in bold if "|" in path
    }


@pytest.mark.parametrize("name", sorted(LISTED))
def test_a_type_knows_every_member_that_the_document_lists(name: str):
    assert set(LISTED[name].split()) <= set(TYPES[name].members)


@EVERY_TYPE
def test_what_is_required_or_expected_has_a_kind_and_labels(event_type: EventType):
    groups = (*event_type.required_any, *event_type.expected)
    paths = [*event_type.required, *(path for group in groups for path in group)]
    assert set(paths) <= set(event_type.members)
    assert len(paths) == len(set(paths))
    assert set(event_type.labels) == set(event_type.members)
    assert event_type.zh
    assert event_type.en
    assert all(label.zh and label.en for label in event_type.labels.values())


@EVERY_TYPE
def test_every_type_allows_the_common_members(event_type: EventType):
    common = {
        "actor.id": "staff",
        "actor.kind": "code",
        "actor.role": "name",
        "on_behalf_of": "staff",
        "activity": "name",
        "purpose": "code",
        "legal_basis": "code",
        "data_categories": "codes",
        "evidence[].sha256": "sha256",
        "evidence[].name": "text",
        "note": "text",
        "reason_text": "text",
        "personal.*": "text",
        "sequence": "int",
        "backfill": "bool",
    }
    assert {path: event_type.members[path].name for path in common} == common


def test_only_the_ledger_s_own_origin_displaces_the_origin_of_a_request():
    without = {name for name, known in TYPES.items() if "origin.ip" not in known.members}
    assert without == {"ledger.opened"}
    assert "origin.system" not in TYPES["ledger.opened"].members


PEOPLE = {
    "actor.id",
    "on_behalf_of",
    "approver",
    "grantee",
    "operator",
    "witness",
    "person",
    "persons",
    "by",
    "verifier",
    "owner",
    "signer",
    "handler",
    "people",
    "holder",
}
WORDS = {
    "note",
    "reason_text",
    "personal.*",
    "origin.ip",
    "origin.device",
    "origin.system",
    "query",
    "cause",
    "measures",
    "explanation",
    "locations",
    "media_ids",
    "destination",
    "scope_text",
    "scope_digest",
    "affected.digest",
    "exclusions_digest",
    "population.digest",
    "population.query",
    "evidence[].name",
    "recipient.name",
    "firm",
    "corrected",
}


@EVERY_TYPE
def test_people_and_words_are_never_clear(event_type: EventType):
    for path, kind in event_type.members.items():
        if path in PEOPLE:
            assert kind.storage == "staff", path
        if path in WORDS:
            assert kind.storage == "sealed", path


@EVERY_TYPE
def test_free_characters_stand_in_clear_only_where_the_ledger_itself_writes(event_type: EventType):
    if any(kind.name in {"token", "tokens"} for kind in event_type.members.values()):
        assert event_type.writers == {Writer.LEDGER}


@EVERY_TYPE
def test_a_type_is_found_by_its_short_and_its_full_name(event_type: EventType):
    assert event_type.full == f"ledger.{event_type.name}.v1"
    assert find_type(event_type.name) is event_type
    assert find_type(event_type.full) is event_type
    assert find_type(event_type.full.replace(".v1", ".v2")) is None
    assert find_type(event_type.name.upper()) is None


def test_no_alias_is_a_type_or_stands_for_two():
    aliases = [alias for known in TYPES.values() for alias in known.aliases]
    assert len(aliases) == len(set(aliases))
    assert not set(aliases) & set(TYPES)


def test_a_developer_sees_the_six_types_of_a_service_first():
    first = [known.name for known in types_for(Writer.SERVICE)[:6]]
    assert first == [
        "record.collected",
        "record.accessed",
        "record.exported",
        "record.updated",
        "record.shared",
        "record.erased",
    ]
    assert {known.name for known in TYPES.values() if known.service_first} == set(first)
    assert {TYPES[name].crud for name in first} == {
        "create",
        "read",
        "update",
        "list/download",
        "send out",
        "delete",
    }
    assert all(Writer.SERVICE in known.writers for known in types_for(Writer.SERVICE))
    assert types_for() == list(TYPES.values())


def test_the_smallest_useful_event_lacks_nothing_required():
    accessed = TYPES["record.accessed"]
    present = {"actor.id", "fields", "activity"}
    assert accessed.missing(present) == ()
    assert accessed.incomplete(present) == ("reason_ref", "grant_ref", "masked")
    assert accessed.missing({"fields"}) == (("actor.id",),)


def test_one_of_a_group_is_enough():
    raised = TYPES["finding.raised"]
    present = {"actor.id", "severity", "evidence_seqs"}
    assert raised.missing(present) == (("rule", "source"),)
    assert raised.missing({*present, "source"}) == raised.missing({*present, "rule"}) == ()
    updated = TYPES["record.updated"]
    present = {"actor.id", "fields", "request_ref", "purpose"}
    assert updated.incomplete(present) == ("personal",)
    assert updated.incomplete({*present, "personal.*"}) == ()


@pytest.mark.parametrize("name", sorted(CODES))
def test_a_vocabulary_of_the_document_holds_exactly_its_codes(name: str):
    assert list(VOCABULARIES[name].codes) == CODES[name].split()


@pytest.mark.parametrize("name", sorted(CODES_AMONG_OTHERS))
def test_a_vocabulary_holds_the_codes_that_the_document_names(name: str):
    assert set(CODES_AMONG_OTHERS[name].split()) <= set(VOCABULARIES[name].codes)


@pytest.mark.parametrize("name", sorted(VOCABULARIES))
def test_every_code_has_both_labels_and_is_used(name: str):
    vocabulary = VOCABULARIES[name]
    assert vocabulary.zh
    assert vocabulary.en
    for code in vocabulary.codes.values():
        assert code.zh
        assert code.en
    kinds = (kind for known in TYPES.values() for kind in known.members.values())
    assert name in {kind.vocabulary for kind in kinds}


def test_rules_find_what_is_sensitive_and_what_is_no_masking():
    assert VOCABULARIES["data_category"].flagged("sensitive") == set(
        CODES["data_category"].split()[-7:]
    )
    assert VOCABULARIES["masking"].flagged("unmasked") == {"none", "encrypt_only"}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("record.acessed", "record.accessed"),
        ("RecordAccessed", "record.accessed"),
        ("ledger.record.acessed.v1", "record.accessed"),
        ("record_accessed", "record.accessed"),
        ("record.access", "record.accessed"),
        ("acessed", "record.accessed"),
        ("read", "record.accessed"),
        ("customer.viewed", "record.accessed"),
        ("record.deleted", "record.erased"),
        ("RecordDeleted", "record.erased"),
        ("record.created", "record.collected"),
        ("ledger.read.v1", "ledger.read"),
        ("ledger.ledger.verifed.v1", "ledger.verified"),
        ("consent.granted", "consent.given"),
        ("TransferManifestSealed", "transfer.manifest_sealed"),
        ("finding.risen", "finding.raised"),
        ("zzz", None),
        ("", None),
        ("13800138000", None),
        ("com.example.frobnicated", None),
    ],
)
def test_a_misspelt_type_is_answered_with_the_nearest(written: str, meant: str | None):
    assert nearest_type(written) == meant


@EVERY_TYPE
def test_the_nearest_to_a_type_is_itself(event_type: EventType):
    assert nearest_type(event_type.name) == event_type.name
    assert nearest_type(event_type.full) == event_type.name


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("field", "fields"),
        ("actor", "actor.id"),
        ("actorId", "actor.id"),
        ("reciever.id", "recipient.id"),
        ("crossBorder.country", "cross_border.country"),
        ("evidence[0].sha", "evidence[].sha256"),
        ("maksing", "masking"),
        ("qqqqqq", None),
    ],
)
def test_a_misspelt_member_is_answered_with_the_nearest(written: str, meant: str | None):
    assert nearest_member(TYPES["record.shared"], written) == meant


def paths_of(content: dict[str, Any], above: str = "") -> set[str]:
    paths: set[str] = set()
    for name, value in content.items():
        paths |= paths_of(value, f"{above}{name}.") if isinstance(value, dict) else {above + name}
    return paths


def test_a_description_is_json_and_its_smallest_event_is_complete_enough():
    described = describe(types_for(Writer.SERVICE))
    assert json.loads(json.dumps(described)) == described
    for entry in described:
        event_type = TYPES[str(entry["type"])]
        smallest = entry["smallest"]
        assert isinstance(smallest, dict)
        assert event_type.missing(paths_of(smallest)) == ()


def test_a_description_repeats_the_common_members_only_when_asked():
    accessed = TYPES["record.accessed"]
    (short,), (whole,) = describe([accessed]), describe([accessed], common=True)
    assert isinstance(short["members"], dict)
    assert isinstance(whole["members"], dict)
    assert set(whole["members"]) == set(accessed.members)
    assert {"actor.id", "fields", "activity", "grant_ref"} <= set(short["members"])
    assert "note" not in short["members"]
    assert whole["members"]["purpose"]["vocabulary"] == "purpose"
    assert whole["members"]["note"]["storage"] == "sealed"
    assert whole["members"]["fields"]["tier"] == "required"


def test_the_vocabularies_are_described_with_their_terms():
    described = describe_vocabularies(["purpose", "masking"])
    assert list(described) == ["purpose", "masking"]
    codes = described["purpose"]["codes"]
    assert isinstance(codes, dict)
    assert codes["aml"] == {
        "zh": "反洗钱",
        "en": "Counter money laundering",
        "dpv": "CounterMoneyLaundering",
    }
    assert set(describe_vocabularies()) == set(VOCABULARIES)


def test_the_table_says_of_every_member_how_it_stands_in_an_entry():
    lines = clear_sealed_table().splitlines()
    own = sum(len(known.own) for known in TYPES.values())
    common = [line for line in lines if line.startswith("| *every type*")]
    assert len(lines) == 2 + len(common) + own
    assert len(set(lines)) == len(lines)
    assert "| *every type* | `actor.id` | staff | sealed for staff |" in lines
    assert "| *every type* | `note` | text | sealed for the customer |" in lines
    assert "| `record.linked` | `other` | record | the other record's pseudonym |" in lines
    assert "| `record.shared` | `masking` | code:masking | clear |" in lines
