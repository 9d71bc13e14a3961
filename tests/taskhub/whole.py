"""What is true of a database at any moment, whatever happened to the processes that wrote to it."""

from collections import defaultdict

from sqlalchemy import Connection, select

from taskhub.storage.database import Database
from taskhub.storage.schema import comments, events, idempotency_keys, tickets, workspaces
from taskhub.tickets.keys import key_of


async def assert_whole(database: Database) -> None:
    """The log has no hole from its beginning on, and before it ticket events alone; of each ticket it has every
    version once, up to the one that the ticket has; every comment has its event; no request is without its answer."""
    await database.read(_assert_whole)


def _assert_whole(connection: Connection) -> None:
    for workspace in connection.execute(select(workspaces)).all():
        here = workspace.id
        log = connection.execute(select(events).where(events.c.workspace_id == here).order_by(events.c.seq)).all()
        beginning, head = workspace.oldest_seq, workspace.head_seq
        assert [event.seq for event in log if event.seq >= beginning] == list(range(beginning, head + 1))
        assert {event.type.partition(".")[0] for event in log if event.seq < beginning} <= {"ticket"}
        assert [event.time for event in log] == sorted(event.time for event in log)
        assert not log or log[-1].time == workspace.head_time

        versions: dict[str, list[int]] = defaultdict(list)
        for event in log:
            # A comment leaves its ticket's version as it is.
            if event.type.startswith("ticket.") and event.type != "ticket.commented":
                versions[event.subject].append(event.ticket_version)
        found = connection.execute(select(tickets).where(tickets.c.workspace_id == here)).all()
        kept = {key_of(workspace.key_prefix, ticket.no): list(range(1, ticket.version + 1)) for ticket in found}
        assert versions == kept
        assert sorted(ticket.no for ticket in found) == list(range(1, workspace.next_no))

        told = {event.seq: event.subject for event in log}
        for comment in connection.execute(select(comments).where(comments.c.workspace_id == here)).all():
            assert told[comment.seq] == key_of(workspace.key_prefix, comment.ticket_no)
    assert all(row.answer for row in connection.execute(select(idempotency_keys.c.answer)).all())
