"""What is kept beside the tickets: answers for repeated requests have their effects, and batches their events."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Row, and_, bindparam, or_, select, tuple_

from broadcaster.errors import InvalidPosition
from broadcaster.event import Position
from taskhub.doctor.findings import Findings
from taskhub.storage.schema import batches, events, idempotency_keys, tickets
from taskhub.tickets.keys import number_of

_K: Final = idempotency_keys.c
_IS: Final = (_K.principal, _K.operation, _K.key)
_RECORDS: Final = (
    select(*_IS, _K.answer)
    .where(
        _K.workspace_id == bindparam("workspace"),
        tuple_(*_IS) > tuple_(bindparam("principal"), bindparam("operation"), bindparam("key")),
    )
    .order_by(*_IS)
    .limit(200)
)
_E: Final = events.c
_EVENT: Final = select(_E.id).where(_E.workspace_id == bindparam("workspace"), _E.seq == bindparam("seq"))
_VERSION: Final = select(tickets.c.version).where(
    tickets.c.workspace_id == bindparam("workspace"), tickets.c.no == bindparam("no")
)
_B: Final = batches.c
_BATCH: Final = select(_B.id).where(_B.workspace_id == bindparam("workspace"), _B.id == bindparam("id"))
_UNDOING: Final = batches.alias("undoing")
_BATCHES: Final = (
    select(_B.id, _B.undoes, _B.undone_by, _B.last_seq, _E.type, _E.batch_id, _UNDOING.c.undoes.label("undone"))
    .join_from(batches, events, and_(_E.workspace_id == _B.workspace_id, _E.seq == _B.last_seq), isouter=True)
    .join(_UNDOING, and_(_UNDOING.c.workspace_id == _B.workspace_id, _UNDOING.c.id == _B.undone_by), isouter=True)
    .where(
        _B.workspace_id == bindparam("workspace"),
        or_(_E.seq.is_(None), _E.type != "batch.finished", _E.batch_id != _B.id, _B.undone_by.is_not(None)),
    )
    .order_by(_B.first_seq)
)


def check_answers(connection: Connection, workspace: Row[Any], findings: Findings) -> None:
    """Every idempotency record has its effect, as far as its answer names one."""
    after = {"principal": "", "operation": "", "key": ""}
    while page := connection.execute(_RECORDS, {"workspace": workspace.id, **after}).all():
        for row in page:
            for what in _lacks(connection, workspace, row.answer):
                named = f"{row.operation} of {row.principal} under the key {row.key}"
                findings.add("idempotency", workspace.id, f"{named}: {what}")
        last = page[-1]
        after = {"principal": last.principal, "operation": last.operation, "key": last.key}


def _lacks(connection: Connection, workspace: Row[Any], answer: str) -> Iterator[str]:
    try:
        found = orjson.loads(answer)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        yield "it has no answer"
        return
    for part in (found, *(part for part in found.get("results") or () if isinstance(part, dict))):
        yield from _missing_ticket(connection, workspace, part)
        if isinstance(event_id := part.get("event_id"), str):
            yield from _missing_event(connection, workspace, event_id, of_ticket="key" in part)
    batch = found.get("batch_id")
    if batch is not None and connection.execute(_BATCH, {"workspace": workspace.id, "id": batch}).first() is None:
        yield f"it made the batch {batch}, and there is none"
    if isinstance(epoch := found.get("epoch"), str):  # published events
        for seq in {found["first"], found["last"]}:
            yield from _missing_event(connection, workspace, f"{epoch}-{seq}", of_ticket=False)


def _missing_ticket(connection: Connection, workspace: Row[Any], answer: Mapping[str, Any]) -> Iterator[str]:
    key, version = answer.get("key"), answer.get("version")
    if not isinstance(key, str) or not isinstance(version, int):
        return
    no = number_of(workspace.key_prefix, key)
    row = connection.execute(_VERSION, {"workspace": workspace.id, "no": no or 0}).first()
    if row is None:
        yield f"its answer is about {key}, and there is no such ticket"
    elif row.version < version:
        yield f"it made version {version} of {key}, which has only version {row.version}"


def _missing_event(connection: Connection, workspace: Row[Any], event_id: str, *, of_ticket: bool) -> Iterator[str]:
    try:
        seq = Position.parse(event_id).seq
    except InvalidPosition:
        yield f"it made the event {event_id}, which is no event's id"
        return
    row = connection.execute(_EVENT, {"workspace": workspace.id, "seq": seq}).first()
    if row is None and seq < workspace.oldest_seq and not of_ticket:
        return  # nobody has to keep it any longer
    if row is None or row.id != event_id:
        yield f"it made the event {event_id}, and there is none"


def check_batches(connection: Connection, workspace: Row[Any], findings: Findings) -> None:
    """Every batch ends with its event, and what was undone was undone by a batch."""
    for row in connection.execute(_BATCHES, {"workspace": workspace.id}):
        ended = row.type == "batch.finished" and row.batch_id == row.id
        if not ended and row.last_seq >= workspace.oldest_seq:
            findings.add("batches", workspace.id, f"{row.id}: event {row.last_seq} does not say that it is finished")
        if row.undone_by is not None and row.undone != row.id:
            findings.add("batches", workspace.id, f"{row.id}: it was undone by {row.undone_by}, which does not say so")
