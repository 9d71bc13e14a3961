"""What a filter of events means for the table of tickets, as far as columns can tell."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, or_, select

from broadcaster.filters import Filter
from taskhub.storage.schema import ticket_labels, tickets
from taskhub.tickets.fields import PRIORITIES
from taskhub.tickets.keys import number_of
from taskhub.tickets.reference import References

_T: Final = tickets.c
_COLUMNS: Final[Mapping[str, Column[Any]]] = {
    "status": _T.status_id,
    "assignee": _T.assignee_id,
    "requestor": _T.requestor_id,
    "account": _T.account_id,
    "category": _T.category_id,
    "channel": _T.channel_id,
}


def narrowing(matches: Filter, references: References, key_prefix: str) -> list[ColumnElement[bool]]:
    """Conditions that every ticket of the filter's snapshot meets. Others may meet them too: ask the filter."""
    found: list[ColumnElement[bool]] = []
    for name, clause in matches.clauses:
        if not clause.exact or clause.prefixes:
            continue
        values = [value for value in clause.exact if value is not None]
        if name in ("ticket", "subject"):
            found.append(_T.no.in_([no for key in values if (no := number_of(key_prefix, key)) is not None]))
        elif name == "phase":
            found.append(_T.status_id.in_(references.statuses_in(values)))
        elif name == "priority":
            found.append(_T.priority.in_([PRIORITIES.index(value) for value in PRIORITIES if value in values]))
        elif name == "label" and None not in clause.exact:
            found.append(_has_label(values))
        elif name in _COLUMNS:
            column = _COLUMNS[name]
            some = column.in_(values)
            found.append(or_(some, column.is_(None)) if None in clause.exact else some)
    return found


def _has_label(labels: Iterable[str]) -> ColumnElement[bool]:
    label = ticket_labels.c
    return _T.no.in_(select(label.ticket_no).where(label.workspace_id == _T.workspace_id, label.label.in_(labels)))
