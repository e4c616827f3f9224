"""List every view, by the name of the question that it answers."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ledger.errors import NotFound
from projections.views.access_history import AccessHistory
from projections.views.record_states import RecordStates
from projections.views.source_sequences import SourceSequences

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from projections.view import View

VIEWS: Final[Mapping[str, type[View]]] = MappingProxyType(
    {view.name: view for view in (RecordStates, AccessHistory, SourceSequences)}
)
"""Every view, in the order in which they are rebuilt."""


def views_named(names: Iterable[str]) -> list[type[View]]:
    """Give the views of these names, each once; all where none is named.

    Raises:
        NotFound: a name is no view's.
    """
    wanted = set(names)
    if not wanted.issubset(VIEWS):
        raise NotFound(f"expected views of: {', '.join(VIEWS)}")
    return [view for name, view in VIEWS.items() if not wanted or name in wanted]
