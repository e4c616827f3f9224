"""Answer every question about the event taxonomy: the one door to this package.

The data is `taxonomy.toml` and `vocabularies.toml`; `event_type` builds it, `kinds`
checks values, `nearest` guesses what a misspelt name meant, and `description`
renders it for developers and for FORMAT.md.
"""

from __future__ import annotations

from ledger.events.description import (
    clear_sealed_table,
    describe,
    smallest_content,
    types_for,
)
from ledger.events.event_type import TYPES, EventType, Label, Subject, Writer, find_type
from ledger.events.kinds import Kind, Storage, kind_named
from ledger.events.nearest import nearest_member, nearest_type
from ledger.events.vocabularies import VOCABULARIES, describe_vocabularies

__all__ = [
    "TYPES",
    "VOCABULARIES",
    "EventType",
    "Kind",
    "Label",
    "Storage",
    "Subject",
    "Writer",
    "clear_sealed_table",
    "describe",
    "describe_vocabularies",
    "find_type",
    "kind_named",
    "nearest_member",
    "nearest_type",
    "smallest_content",
    "types_for",
]
