"""The event log of a workspace: nothing is missing from it, and it ends where the workspace's row says."""

from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, select

from taskhub.doctor.findings import Findings
from taskhub.storage.schema import events
from taskhub.storage.seeds import BEFORE_ALL_EVENTS

_E: Final = events.c
_PAGE: Final = (
    select(_E.seq, _E.id, _E.time, _E.type, _E.subject, _E.ticket_version)
    .where(_E.workspace_id == bindparam("workspace"), _E.seq > bindparam("after"))
    .order_by(_E.seq)
    .limit(2000)
)


def check_log(connection: Connection, workspace: Row[Any], findings: Findings) -> int:
    """Go through the log once; how many events there are. `workspace`: its row."""

    def problem(what: str) -> None:
        findings.add("log", workspace.id, what)

    oldest, head = workspace.oldest_seq, workspace.head_seq
    if not 1 <= oldest <= head + 1:
        problem(f"the log begins at {oldest} and ends at {head}")
    count, after, time = 0, 0, BEFORE_ALL_EVENTS
    expected = oldest
    while page := connection.execute(_PAGE, {"workspace": workspace.id, "after": after}).all():
        for event in page:
            if event.seq >= oldest:
                if event.seq > expected:
                    problem(_missing(expected, event.seq - 1))
                expected = event.seq + 1
            elif not event.type.startswith("ticket."):
                problem(f"event {event.seq} ({event.type}) is before the beginning of the log and about no ticket")
            if event.seq > head:
                problem(f"event {event.seq} is beyond the end of the log, which is {head}")
            if event.time < time:
                problem(f"event {event.seq} is of an earlier time than the event before it")
            if not event.id.endswith(f"-{event.seq}"):
                problem(f"event {event.seq} has the id {event.id}")
            if event.type.startswith("ticket.") and (event.subject is None or event.ticket_version is None):
                problem(f"event {event.seq} ({event.type}) does not say which version of which ticket it is about")
            time = max(time, event.time)
        count += len(page)
        after = page[-1].seq
    if expected <= head:
        problem(_missing(expected, head))
    if count and workspace.head_time != time:
        problem(f"the newest event is of {time}, and the workspace says {workspace.head_time}")
    return count


def _missing(first: int, last: int) -> str:
    return f"event {first} is missing" if first == last else f"events {first} to {last} are missing"
