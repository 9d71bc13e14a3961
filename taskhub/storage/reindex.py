"""The search index from what it is made of: every ticket's texts and every comment, some at a time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, insert, select, tuple_

from taskhub.storage.schema import comments, search_documents, ticket_labels, tickets
from taskhub.storage.search import TEXTS, rows_of

PAGE: Final = 200

_T: Final = tickets.c
_L: Final = ticket_labels.c
_C: Final = comments.c
_TICKETS: Final = (
    select(_T.workspace_id, _T.no, *(_T[name] for name in TEXTS))
    .where(tuple_(_T.workspace_id, _T.no) > tuple_(bindparam("workspace"), bindparam("no")))
    .order_by(_T.workspace_id, _T.no)
    .limit(PAGE)
)
_LABELS: Final = (
    select(_L.workspace_id, _L.ticket_no, _L.label)
    .where(tuple_(_L.workspace_id, _L.ticket_no).in_(bindparam("tickets", expanding=True)))
)  # fmt: skip
_COMMENTS: Final = (
    select(_C.workspace_id, _C.seq, _C.ticket_no, _C.body)
    .where(tuple_(_C.workspace_id, _C.seq) > tuple_(bindparam("workspace"), bindparam("no")))
    .order_by(_C.workspace_id, _C.seq)
    .limit(PAGE)
)


@dataclass(frozen=True, slots=True)
class Indexed:
    """Texts that are found together: a ticket's own, or (`comment_seq`) those of one of its comments."""

    workspace: str
    ticket_no: int
    comment_seq: int | None
    texts: tuple[str | None, ...]

    def rows(self, connection: Connection) -> list[dict[str, Any]]:
        """The rows of the index that there must be for it."""
        return rows_of(connection, self.workspace, self.ticket_no, self.texts, self.comment_seq)


def rebuild(connection: Connection) -> None:
    """Make the whole index again."""
    connection.execute(delete(search_documents))
    for page in pages(connection):
        if rows := [row for indexed in page for row in indexed.rows(connection)]:
            connection.execute(insert(search_documents), rows)


def pages(connection: Connection) -> Iterator[list[Indexed]]:
    """All that is in the index, in pages of tickets, then of comments; no page has both."""
    workspace, no = "", 0
    while found := connection.execute(_TICKETS, {"workspace": workspace, "no": no}).all():
        labels = _labels(connection, ((row.workspace_id, row.no) for row in found))
        yield [
            Indexed(row.workspace_id, row.no, None, (*row[2:], *sorted(labels.get((row.workspace_id, row.no), ()))))
            for row in found
        ]
        workspace, no = found[-1].workspace_id, found[-1].no
    workspace, no = "", 0
    while found := connection.execute(_COMMENTS, {"workspace": workspace, "no": no}).all():
        yield [Indexed(row.workspace_id, row.ticket_no, row.seq, (row.body,)) for row in found]
        workspace, no = found[-1].workspace_id, found[-1].seq


def _labels(connection: Connection, numbers: Iterable[tuple[str, int]]) -> dict[tuple[str, int], list[str]]:
    found: dict[tuple[str, int], list[str]] = {}
    for row in connection.execute(_LABELS, {"tickets": list(numbers)}):
        found.setdefault((row.workspace_id, row.ticket_no), []).append(row.label)
    return found
