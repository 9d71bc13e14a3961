"""The tickets of a workspace: their events, told again one after the other, make them what they are."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import orjson
from sqlalchemy import (
    BindParameter,
    Connection,
    Row,
    Select,
    Text,
    bindparam,
    cast,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
)

from taskhub.doctor.findings import Findings
from taskhub.doctor.replay import TicketReplay
from taskhub.storage.schema import attachments, comments, events, ticket_relations, tickets
from taskhub.tickets.keys import key_of, number_of
from taskhub.tickets.reads import seen_from
from taskhub.tickets.record import RECORDS, TicketRecord, record_of
from taskhub.tickets.reference import References
from taskhub.tickets.unit import IS_BLOCKED

CHUNK: Final = 200
"""Tickets that are held against their rows together."""

_E: Final = events.c
_PAGE: Final = (
    select(_E.seq, _E.subject, _E.type, _E.ticket_version, _E.data)
    .where(
        _E.workspace_id == bindparam("workspace"),
        _E.type.startswith("ticket."),
        tuple_(_E.subject, _E.seq) > tuple_(bindparam("subject"), bindparam("seq")),
    )
    .order_by(_E.subject, _E.seq)
    .limit(500)
)
_T: Final = tickets.c
_OF_WORKSPACE: Final = _T.workspace_id == bindparam("workspace")
_NUMBERS: Final[BindParameter[Any]] = bindparam("numbers", expanding=True)
_RECORDS: Final = RECORDS.where(_OF_WORKSPACE, _T.no.in_(_NUMBERS))
_C: Final = comments.c
_COMMENTS: Final = select(_C.ticket_no, _C.seq, _C.body, _C.edited_at).where(
    _C.workspace_id == bindparam("workspace"), _C.ticket_no.in_(_NUMBERS)
)
_R: Final = ticket_relations.c
_RELATIONS: Final = (
    select(_R.from_no, _R.kind, _R.to_no, (_R.created_at == _T.created_at).label("made_with_it"))
    .join_from(ticket_relations, tickets, (_T.workspace_id == _R.workspace_id) & (_T.no == _R.to_no))
    .where(_R.workspace_id == bindparam("workspace"), or_(_R.from_no.in_(_NUMBERS), _R.to_no.in_(_NUMBERS)))
)
_A: Final = attachments.c
_ATTACHMENTS: Final = (
    select(_A.ticket_no, _A.file_name)
    .where(_A.workspace_id == bindparam("workspace"), _A.ticket_no.in_(_NUMBERS))
    .order_by(_A.ticket_no, _A.no)
)
_BLOCKED: Final = select(_T.no, _T.blocked).where(_OF_WORKSPACE, _T.deleted_at.is_(None), _T.blocked != IS_BLOCKED)
_COUNTS: Final = select(_T.status_id, func.count()).where(_OF_WORKSPACE, _T.deleted_at.is_(None)).group_by(_T.status_id)
_EXTENT: Final = select(func.count(), func.max(_T.no)).where(_OF_WORKSPACE)


class TicketCheck:
    """The tickets of one workspace, whose row is `workspace`."""

    def __init__(self, connection: Connection, workspace: Row[Any], references: References, findings: Findings) -> None:
        self._connection = connection
        self._workspace = workspace
        self._prefix: str = workspace.key_prefix
        self._references = references
        self._findings = findings

    def run(self) -> int:
        """Look at all of them; how many there are."""
        some: list[tuple[str, TicketReplay]] = []
        for key, told in groupby(self._events(), key=lambda event: str(event.subject)):
            replay = TicketReplay()
            for event in told:
                for what in replay.follow(event.seq, event.type, event.ticket_version, event.data):
                    self._problem("tickets", f"{key}: {what}")
            some.append((key, replay))
            if len(some) == CHUNK:
                self._compare(some)
                some = []
        self._compare(some)
        self._untold()
        for row in self._connection.execute(_BLOCKED, {"workspace": self._workspace.id}):
            said = "is marked as blocked, but no open ticket blocks it" if row.blocked else (
                "is not marked as blocked, but an open ticket blocks it"
            )  # fmt: skip
            self._problem("blocked", f"{self._key(row.no)} {said}")
        self._counted()
        return self._numbers()

    def _counted(self) -> None:
        counts = {row[0]: row[1] for row in self._connection.execute(_COUNTS, {"workspace": self._workspace.id})}
        kept = orjson.loads(self._workspace.ticket_counts)
        for status in sorted(counts.keys() | kept.keys()):
            if counts.get(status, 0) != kept.get(status, 0):
                found = f"the board counts {kept.get(status, 0)} tickets, and there are {counts.get(status, 0)}"
                self._problem("counts", f"of the status {status} {found}")

    def _events(self) -> Iterator[Row[*tuple[Any, ...]]]:
        after = {"subject": "", "seq": 0}
        while page := self._connection.execute(_PAGE, {"workspace": self._workspace.id, **after}).all():
            yield from page
            after = {"subject": page[-1].subject, "seq": page[-1].seq}

    def _compare(self, replays: Sequence[tuple[str, TicketReplay]]) -> None:
        by_number = {number_of(self._prefix, key): (key, replay) for key, replay in replays}
        where = {"workspace": self._workspace.id, "numbers": [no for no in by_number if no is not None]}
        records = {record.no: record for record in map(record_of, self._connection.execute(_RECORDS, where))}
        comments_of = self._by_ticket(_COMMENTS, where)
        attachments_of = self._by_ticket(_ATTACHMENTS, where)
        relations_of: dict[int, list[Row[Any]]] = {}
        for row in self._connection.execute(_RELATIONS, where):
            relations_of.setdefault(row.from_no, []).append(row)
            relations_of.setdefault(row.to_no, []).append(row)
        for no, (key, replay) in by_number.items():
            record = None if no is None else records.get(no)
            if record is None:
                self._problem("tickets", f"{key}: there are events about it, but there is no such ticket")
                continue
            for what in replay.differences(record, self._references, self._prefix):
                self._problem("tickets", f"{key}: {what}")
            self._check_comments(key, replay, comments_of.get(record.no, []))
            self._check_relations(key, record.no, replay, relations_of.get(record.no, []))
            names = [row.file_name for row in attachments_of.get(record.no, [])]
            if replay.told.get("attachments", names) != names:
                self._problem("tickets", f"{key}: its attachments are not those that its events say")
            self._check_lease(key, record, replay)

    def _by_ticket(self, statement: Select[*tuple[Any, ...]], where: Mapping[str, Any]) -> dict[int, list[Row[Any]]]:
        found: dict[int, list[Row[Any]]] = {}
        for row in self._connection.execute(statement, where):
            found.setdefault(row.ticket_no, []).append(row)
        return found

    def _check_comments(self, key: str, replay: TicketReplay, rows: Sequence[Row[Any]]) -> None:
        found = {row.seq: row for row in rows}
        for seq in sorted(found.keys() ^ replay.comments.keys()):
            said = "no event carries it" if seq in found else "it is not there, but its event is"
            self._problem("comments", f"{key}: comment {seq}: {said}")
        for seq in sorted(found.keys() & replay.comments.keys()):
            if found[seq].edited_at is None and hash(found[seq].body) != replay.comments[seq]:
                self._problem("comments", f"{key}: comment {seq} does not say what its event says")

    def _check_relations(self, key: str, no: int, replay: TicketReplay, rows: Sequence[Row[Any]]) -> None:
        told = set(replay.told.get("relations", ()))
        found = set()
        for row in rows:
            relation = seen_from(row.kind, outgoing=row.from_no == no)
            words = f"{relation} {self._key(row.to_no if row.from_no == no else row.from_no)}"
            found.add(words)
            # What a ticket was created with is told by no event.
            if words not in told and not (row.kind == "blocks" and row.made_with_it):
                self._problem("relations", f"{key}: no event says that it is `{words}`")
        for words in sorted(told - found):
            self._problem("relations", f"{key}: its events say `{words}`, and there is no such relation")

    def _check_lease(self, key: str, record: TicketRecord, replay: TicketReplay) -> None:
        lease = record.lease
        if (0 if lease is None else lease.token) != replay.claims:
            token = "no lease" if lease is None else f"the lease token {lease.token}"
            self._problem("leases", f"{key}: it has {token}, and was claimed {replay.claims} times")
        if lease is None or lease.holder is None:
            return
        if record.deleted_at is not None or self._references.phase(record.status_id) != "active":
            self._problem("leases", f"{key}: {lease.holder} holds it, but there is no work under way")
        if lease.expires_at < lease.acquired_at:
            self._problem("leases", f"{key}: its lease ended before it began")
        if lease.told_seq > self._workspace.head_seq:
            self._problem("leases", f"{key}: its holder was told of comments that are beyond the end of the log")

    def _untold(self) -> None:
        """Tickets about which there is not even the event of their creation."""
        key = literal(f"{self._prefix}-").concat(cast(_T.no, Text))
        created = exists().where(
            _E.workspace_id == _T.workspace_id, _E.subject == key, _E.type == "ticket.created"
        )  # fmt: skip
        untold = select(_T.no).where(_OF_WORKSPACE, ~created)
        for row in self._connection.execute(untold, {"workspace": self._workspace.id}):
            self._problem("tickets", f"{self._key(row.no)}: no event says that it was created")

    def _numbers(self) -> int:
        count, last = self._connection.execute(_EXTENT, {"workspace": self._workspace.id}).one()
        if count != (last or 0):
            self._problem("tickets", f"there are {count} tickets, and the last one is {self._key(last)}")
        if self._workspace.next_no != (last or 0) + 1:
            self._problem("tickets", f"the next number is {self._workspace.next_no}, and should be {(last or 0) + 1}")
        return int(count)

    def _problem(self, check: str, what: str) -> None:
        self._findings.add(check, self._workspace.id, what)

    def _key(self, no: int) -> str:
        return key_of(self._prefix, no)
