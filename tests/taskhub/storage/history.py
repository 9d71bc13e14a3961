"""A database in which a bit of everything has happened, and all that a database holds, to be compared."""

from typing import Any, Final

from sqlalchemy import Connection, select

from broadcaster.event import EventDraft
from taskhub.publishing import EventPublisher
from taskhub.storage.database import Database
from taskhub.storage.schema import METADATA, search_documents
from taskhub.tickets.inputs import BulkItem, BulkUpdate, NewAttachment, NewClaim, NewComment, NewTicket, UndoBatch
from taskhub.tickets.reference_inputs import NewUser
from tests.taskhub.world import ALICE, World, caller

BOB: Final = caller("agent:bob")
DRAFT: Final = EventDraft("build.finished", "user:alice", "rest_api", '{"名前": [1, 2.50, null]}'.encode(), "TH-1")

Contents = dict[str, list[tuple[Any, ...]]]


async def live(world: World) -> None:
    """Tickets with all their parts, of which one is claimed, one deleted and one below a later one; events of others,
    answers that are kept for a repeat, and a batch that was undone."""
    tickets = world.tickets
    await tickets.create_reference(ALICE, "users", NewUser(name="Carol", kind="human", role="agent"))
    new = NewTicket(
        summary="Printer is on fire", description="全文検索機能", labels=["ux", "急ぎ"], actual_effort_hours=0.1
    )
    await tickets.create_ticket(ALICE, new, idempotency_key="k-1")
    await world.create("second", blocked_by=["TH-1"], has_defect=True, person_in_charge="carol")
    await world.create("third")
    await world.update("TH-1", parent="TH-3", comment="a special remark", priority="urgent")
    await tickets.link_tickets(ALICE, "TH-2", "related", "TH-3")
    await tickets.add_attachment(ALICE, "TH-1", NewAttachment(file_name="a.txt", url="https://example.org/a.txt"))
    await tickets.claim_ticket(BOB, "TH-1", NewClaim(), idempotency_key="claim")
    world.tick()
    await tickets.add_comment(ALICE, "TH-1", NewComment(comment="質問です", kind="question"), idempotency_key="c")
    asked = BulkUpdate(items=[BulkItem(ticket_id="TH-3", remarks="so"), BulkItem(ticket_id="TH-2", remarks="too")])
    made = await tickets.update_tickets(ALICE, asked, idempotency_key="bulk")
    await tickets.undo_batch(ALICE, str(made.batch_id), UndoBatch())
    await world.create("deleted")
    await tickets.delete_ticket(ALICE, "TH-4")
    await EventPublisher(world.writer).publish(ALICE, [DRAFT, DRAFT], idempotency_key="p-1")


async def contents(database: Database) -> Contents:
    """The rows of every table but the search index, in an order that collations do not change."""

    def read(connection: Connection) -> Contents:
        return {
            table.name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
            for table in METADATA.tables.values()
            if table is not search_documents
        }

    return await database.read(read)


def without_names(held: Contents) -> Contents:
    """Contents without what a restore makes anew: id and secret of the deployment, epochs, versions of references."""
    workspaces = [tuple(value for i, value in enumerate(row) if i not in (4, 8)) for row in held["workspaces"]]
    return {**held, "deployment": [row[2:] for row in held["deployment"]], "workspaces": workspaces}
