"""Relations between tickets, what they mean for readiness, and attachments."""

from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select

from taskhub.storage.database import Database
from taskhub.storage.schema import ticket_relations
from taskhub.tickets import links
from taskhub.tickets.errors import InvalidInput, TicketCycle, TicketGone, TicketNotFound
from taskhub.tickets.inputs import NewAttachment
from taskhub.tickets.links import MAX_ATTACHMENTS
from taskhub.tickets.model import Attachment, RelationName
from tests.examples import EXAMPLES
from tests.taskhub.world import ALICE, World, rows

OPPOSITE: dict[str, RelationName] = {
    "blocks": "blocked_by", "blocked_by": "blocks", "related": "related", "duplicates": "duplicated_by",
    "duplicated_by": "duplicates",
}  # fmt: skip


@pytest.fixture
async def world(world: World) -> World:
    """With three tickets."""
    for summary in ("one", "two", "three"):
        await world.create(summary)
    world.heard.clear()
    world.tick()
    return world


async def link(world: World, key: str, relation: RelationName, other: str, **more: Any) -> Any:
    return await world.tickets.link_tickets(ALICE, key, relation, other, **more)


async def unlink(world: World, key: str, relation: RelationName, other: str, **more: Any) -> Any:
    return await world.tickets.unlink_tickets(ALICE, key, relation, other, **more)


async def relations(world: World, key: str) -> list[tuple[str, str]]:
    found = (await world.tickets.get_ticket(ALICE, key, include=["relations"])).relations or []
    return [(relation.relation, relation.ticket) for relation in found]


async def ready(world: World) -> list[str]:
    return await world.keys(ready=True, sort_by="key", sort_order="asc")


def heard(world: World) -> list[tuple[str, str | None, int | None, dict[str, Any], Any]]:
    """The events: type, ticket, version, changes, relation."""
    found = [
        (event.type, event.subject, event.ticket_version, dict(event.changes), event.parsed.get("relation"))
        for event in world.heard
    ]
    world.heard.clear()
    return found


@pytest.mark.parametrize("relation", get_args(RelationName))
async def test_a_relation_is_seen_from_both_sides(world: World, relation: RelationName) -> None:
    await link(world, "th-1", relation, "th-2")

    assert await relations(world, "TH-1") == [(relation, "TH-2")]
    assert await relations(world, "TH-2") == [(OPPOSITE[relation], "TH-1")]
    stored = await rows(world.database, select(func.count()).select_from(ticket_relations))
    assert stored[0][0] == 1


async def test_both_tickets_get_an_event_and_a_version(world: World) -> None:
    written = await link(world, "TH-1", "blocks", "TH-2")

    assert (written.key, written.version, written.noop) == ("TH-1", 2, False)
    assert heard(world) == [
        (
            "ticket.linked", "TH-1", 2, {"relations": [[], ["blocks TH-2"]]},
            {"relation": "blocks", "ticket": "TH-2"},
        ),
        (
            "ticket.linked", "TH-2", 2, {"relations": [[], ["blocked_by TH-1"]], "blocked": [False, True]},
            {"relation": "blocked_by", "ticket": "TH-1"},
        ),
    ]  # fmt: skip


async def test_the_end_of_a_relation_is_told_of_both_and_what_it_unblocks(world: World) -> None:
    await link(world, "TH-1", "blocks", "TH-2")
    await link(world, "TH-2", "related", "TH-3")
    world.heard.clear()

    written = await unlink(world, "TH-2", "blocked_by", "TH-1")

    assert heard(world) == [
        (
            "ticket.unlinked", "TH-2", 4, {"relations": [["blocked_by TH-1", "related TH-3"], ["related TH-3"]]},
            {"relation": "blocked_by", "ticket": "TH-1"},
        ),
        (
            "ticket.unlinked", "TH-1", 3, {"relations": [["blocks TH-2"], []]},
            {"relation": "blocks", "ticket": "TH-2"},
        ),
        ("ticket.unblocked", "TH-2", 5, {"blocked": [True, False]}, None),
    ]  # fmt: skip
    assert written.version == 5 == (await world.ticket("TH-2")).version
    assert await relations(world, "TH-1") == []


@pytest.mark.parametrize(("relation", "again"), [("blocks", "blocks"), ("related", "related")])
async def test_what_is_linked_already_is_a_noop_from_either_side(
    world: World, relation: RelationName, again: RelationName
) -> None:
    await link(world, "TH-1", relation, "TH-2")
    world.heard.clear()

    first = await link(world, "TH-1", again, "TH-2")
    second = await link(world, "TH-2", OPPOSITE[relation], "TH-1")

    assert (first.noop, first.version, second.noop, second.version) == (True, 2, True, 2)
    assert world.heard == []


async def test_ending_a_relation_that_is_not_there_is_a_noop(world: World) -> None:
    await link(world, "TH-1", "blocks", "TH-2")
    world.heard.clear()

    answer = await unlink(world, "TH-1", "blocked_by", "TH-2")

    assert (answer.noop, answer.version, world.heard) == (True, 2, [])
    assert await relations(world, "TH-1") == [("blocks", "TH-2")]


async def test_a_circle_is_refused_with_its_path(world: World) -> None:
    await link(world, "TH-1", "blocks", "TH-2")
    await link(world, "TH-3", "blocked_by", "TH-2")
    world.heard.clear()

    with pytest.raises(TicketCycle, match="TH-3 → TH-1 → TH-2 → TH-3") as refused:
        await link(world, "TH-3", "blocks", "TH-1")
    with pytest.raises(TicketCycle) as other_way:
        await link(world, "TH-1", "blocked_by", "TH-2")

    assert refused.value.path == ["TH-3", "TH-1", "TH-2", "TH-3"]
    assert other_way.value.path == ["TH-2", "TH-1", "TH-2"]
    assert world.heard == []
    assert await relations(world, "TH-3") == [("blocked_by", "TH-2")]


async def test_a_circle_over_a_deleted_ticket_is_refused_since_it_can_be_restored(world: World) -> None:
    await link(world, "TH-1", "blocks", "TH-2")
    await link(world, "TH-2", "blocks", "TH-3")
    await world.tickets.delete_ticket(ALICE, "TH-2")

    with pytest.raises(TicketCycle):
        await link(world, "TH-3", "blocks", "TH-1")


async def test_a_circle_is_found_in_one_statement_however_far_it_leads(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody else in the workspace waits for the search."""
    for n in range(4, 11):
        await world.create(f"{n}", parent=f"TH-{n - 1}")
    for n in range(1, 10):
        await link(world, f"TH-{n}", "blocks", f"TH-{n + 1}")
        await link(world, f"TH-{n}", "blocks", f"TH-{min(n + 2, 10)}")
    asked: list[str] = []
    execute = Connection.execute

    def counted(connection: Connection, statement: Any, *more: Any, **options: Any) -> Any:
        asked.append(str(statement))
        return execute(connection, statement, *more, **options)

    monkeypatch.setattr(Connection, "execute", counted)
    counts = []
    for blocker in ("TH-2", "TH-10"):
        asked.clear()
        with pytest.raises(TicketCycle) as refused:
            await link(world, blocker, "blocks", "TH-1")
        counts.append(len(asked))
    with pytest.raises(InvalidInput, match="TH-3 is an ancestor"):
        await world.update("TH-3", parent="TH-10")

    assert counts[0] == counts[1]
    assert refused.value.path == ["TH-10", "TH-1", "TH-2", "TH-4", "TH-6", "TH-8", "TH-10"]


async def test_other_relations_may_go_in_circles(world: World) -> None:
    await link(world, "TH-1", "related", "TH-2")
    await link(world, "TH-2", "related", "TH-3")
    await link(world, "TH-3", "related", "TH-1")
    await link(world, "TH-1", "blocks", "TH-2")
    await link(world, "TH-2", "duplicates", "TH-1")

    assert await relations(world, "TH-1") == [
        ("blocks", "TH-2"), ("duplicated_by", "TH-2"), ("related", "TH-2"), ("related", "TH-3"),
    ]  # fmt: skip


@pytest.mark.parametrize("relation", get_args(RelationName))
async def test_a_ticket_has_no_relation_to_itself(world: World, relation: RelationName) -> None:
    for change in (link, unlink):
        with pytest.raises(InvalidInput, match="no relation to itself") as refused:
            await change(world, "TH-1", relation, "th-1")
        assert refused.value.problems[0].pointer == "/other"


async def test_tickets_that_are_not_there_cannot_be_linked(world: World) -> None:
    await world.tickets.delete_ticket(ALICE, "TH-3")

    for change in (link, unlink):
        with pytest.raises(TicketNotFound, match="TH-9"):
            await change(world, "TH-1", "blocks", "TH-9")
        with pytest.raises(TicketNotFound, match="TH-9"):
            await change(world, "TH-9", "blocks", "TH-1")
        with pytest.raises(TicketGone, match="TH-3"):
            await change(world, "TH-1", "blocks", "TH-3")


async def test_a_ticket_has_a_bounded_number_of_relations(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "MAX_RELATIONS", 2)
    await link(world, "TH-1", "related", "TH-2")
    await link(world, "TH-1", "related", "TH-3")

    for key, other in (("TH-1", "TH-2"), ("TH-2", "TH-1")):
        with pytest.raises(InvalidInput, match="TH-1 has 2 relations"):
            await link(world, key, "duplicates", other)

    assert len(await relations(world, "TH-1")) == 2


async def test_what_blocks_a_new_ticket_is_told_of_both_like_any_relation(world: World) -> None:
    written = await world.create("four", blocked_by=["TH-2", "TH-1", "th-2"])

    assert (written.version, written.event_id) == (1, world.heard[0].id)
    assert heard(world) == [
        ("ticket.created", "TH-4", 1, {"relations": [[], ["blocked_by TH-1", "blocked_by TH-2"]]}, None),
        (
            "ticket.linked", "TH-1", 2, {"relations": [[], ["blocks TH-4"]]},
            {"relation": "blocks", "ticket": "TH-4"},
        ),
        (
            "ticket.linked", "TH-2", 2, {"relations": [[], ["blocks TH-4"]]},
            {"relation": "blocks", "ticket": "TH-4"},
        ),
    ]  # fmt: skip
    assert [(await world.ticket(key)).version for key in ("TH-1", "TH-2", "TH-4")] == [2, 2, 1]
    assert await relations(world, "TH-4") == [("blocked_by", "TH-1"), ("blocked_by", "TH-2")]


async def test_a_new_ticket_gives_no_other_more_relations_than_it_may_have(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "MAX_RELATIONS", 1)
    await link(world, "TH-1", "related", "TH-2")
    world.heard.clear()

    with pytest.raises(InvalidInput, match="TH-1 has 1 relations, and no ticket has more") as refused:
        await world.create("four", blocked_by=["TH-3", "TH-1"])

    assert refused.value.problems[0].pointer == "/blocked_by/1"
    assert world.heard == []
    assert (await world.create("four", blocked_by=["TH-3"])).key == "TH-4"


async def test_a_repeat_under_one_key_links_once(world: World) -> None:
    first = await link(world, "TH-1", "blocks", "TH-2", idempotency_key="k")
    await unlink(world, "TH-1", "blocks", "TH-2")

    again = await link(world, "TH-1", "blocks", "TH-2", idempotency_key="k")

    assert (again.replayed, again.event_id) == (True, first.event_id)
    assert await relations(world, "TH-1") == []


class Model:
    """What the relations and readiness of some tickets should be."""

    def __init__(self) -> None:
        self.blocks: set[tuple[int, int]] = set()
        self.closed: set[int] = set()
        self.deleted: set[int] = set()

    def reaches(self, start: int, goal: int) -> bool:
        seen, todo = set(), [start]
        while todo:
            at = todo.pop()
            if at == goal:
                return True
            seen.add(at)
            todo += [to for origin, to in self.blocks if origin == at and to not in seen]
        return False

    def blocked(self, no: int) -> bool:
        return any(to == no and origin not in self.closed | self.deleted for origin, to in self.blocks)

    def ready(self, numbers: range) -> list[str]:
        gone = self.closed | self.deleted
        return [f"TH-{no}" for no in numbers if no not in gone and not self.blocked(no)]


NUMBERS = range(1, 6)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["link", "link", "link", "unlink", "close", "reopen", "delete", "restore"]),
        st.sampled_from(NUMBERS),
        st.sampled_from(["blocks", "blocked_by"]),
        st.sampled_from(NUMBERS),
    ),
    min_size=10,
    max_size=40,
)


@settings(max_examples=EXAMPLES // 16, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_whatever_is_done_no_circle_comes_about_and_what_is_ready_is_right(
    database: Database, steps: list[tuple[str, int, RelationName, int]]
) -> None:
    world, model = World(database), Model()
    made = [(await world.create(str(no))).key for no in NUMBERS]
    offset = int(made[0].removeprefix("TH-")) - 1  # each example has tickets of its own in the one database
    try:
        for action, no, relation, other in steps:
            await _step(world, model, offset, action, no, relation, other)
            shown = [
                f"TH-{number - offset}"
                for key in await ready(world)
                if (number := int(key.removeprefix("TH-"))) > offset
            ]
            assert shown == model.ready(NUMBERS)
        for no in set(NUMBERS) - model.deleted:
            assert (await world.ticket(f"TH-{no + offset}")).blocked == model.blocked(no)
    finally:
        for no in set(NUMBERS) - model.deleted:
            await world.tickets.delete_ticket(ALICE, f"TH-{no + offset}")
        await world.writer.close()


async def _step(
    world: World, model: Model, offset: int, action: str, no: int, relation: RelationName, other: int
) -> None:
    key, partner = f"TH-{no + offset}", f"TH-{other + offset}"
    edge = (no, other) if relation == "blocks" else (other, no)
    if action in ("link", "unlink"):
        change = link if action == "link" else unlink
        if model.deleted & {no, other}:
            with pytest.raises(TicketGone):
                await change(world, key, relation, partner)
        elif no == other:
            with pytest.raises(InvalidInput):
                await change(world, key, relation, partner)
        elif action == "unlink":
            assert (await unlink(world, key, relation, partner)).noop == (edge not in model.blocks)
            model.blocks.discard(edge)
        elif model.reaches(edge[1], edge[0]):
            with pytest.raises(TicketCycle):
                await link(world, key, relation, partner)
        else:
            assert (await link(world, key, relation, partner)).noop == (edge in model.blocks)
            model.blocks.add(edge)
    elif action == "restore":
        assert (await world.tickets.restore_ticket(ALICE, key)).noop == (no not in model.deleted)
        model.deleted.discard(no)
    elif no not in model.deleted:
        if action == "delete":
            await world.tickets.delete_ticket(ALICE, key)
            model.deleted.add(no)
        else:
            await world.update(key, status="completed" if action == "close" else "received")
            (model.closed.add if action == "close" else model.closed.discard)(no)


# ── attachments ──


def file(name: str) -> NewAttachment:
    return NewAttachment(file_name=name, url=f"https://example.org/{name}")


async def attachments(world: World, key: str = "TH-1") -> list[Attachment]:
    return (await world.tickets.get_ticket(ALICE, key, include=["attachments"])).attachments or []


async def test_a_file_is_attached_with_an_event_that_names_all(world: World) -> None:
    await world.tickets.add_attachment(ALICE, "TH-1", file("a.txt"))
    written = await world.tickets.add_attachment(ALICE, "TH-1", file("b.txt"))

    event = world.heard[-1]
    assert (event.type, event.ticket_version, written.version) == ("ticket.updated", 3, 3)
    assert event.changes == {"attachments": [["a.txt"], ["a.txt", "b.txt"]]}
    assert event.parsed["attachment"] == {"id": "2", "file_name": "b.txt", "url": "https://example.org/b.txt"}
    time = "2026-11-20T12:00:00.001Z"
    assert await attachments(world) == [
        Attachment("1", "a.txt", "https://example.org/a.txt", time),
        Attachment("2", "b.txt", "https://example.org/b.txt", time),
    ]


async def test_a_file_is_removed_by_its_number(world: World) -> None:
    await world.tickets.add_attachment(ALICE, "TH-1", file("a.txt"))
    await world.tickets.add_attachment(ALICE, "TH-1", file("b.txt"))

    written = await world.tickets.remove_attachment(ALICE, "TH-1", 1)
    nothing = await world.tickets.remove_attachment(ALICE, "TH-1", 1)

    assert (written.version, nothing.noop, nothing.version) == (4, True, 4)
    assert world.heard[-1].changes == {"attachments": [["a.txt", "b.txt"], ["b.txt"]]}
    assert [attached.id for attached in await attachments(world)] == ["2"]


@pytest.mark.parametrize("at_creation", [False, True])
async def test_the_number_of_a_removed_file_is_never_that_of_another(world: World, at_creation: bool) -> None:
    """Else who removes it late, or once more, would remove somebody else's."""
    key = "TH-1"
    if at_creation:
        key = (await world.create("four", attachments=[file("a.txt"), file("b.txt")])).key
    else:
        for name in ("a.txt", "b.txt"):
            await world.tickets.add_attachment(ALICE, key, file(name))
    await world.tickets.remove_attachment(ALICE, key, 2)
    await world.tickets.add_attachment(ALICE, key, file("c.txt"))
    late = await world.tickets.remove_attachment(ALICE, key, 2)

    assert late.noop
    assert [(attached.id, attached.file_name) for attached in await attachments(world, key)] == [
        ("1", "a.txt"), ("3", "c.txt"),
    ]  # fmt: skip


async def test_a_ticket_has_at_most_fifty_attachments(world: World) -> None:
    key = (await world.create("full", attachments=[file(str(n)) for n in range(MAX_ATTACHMENTS)])).key

    with pytest.raises(InvalidInput, match="at most 50 attachments"):
        await world.tickets.add_attachment(ALICE, key, file("another"))

    assert len(await attachments(world, key)) == MAX_ATTACHMENTS


async def test_a_repeat_under_one_key_attaches_once(world: World) -> None:
    first = await world.tickets.add_attachment(ALICE, "TH-1", file("a.txt"), idempotency_key="k")
    again = await world.tickets.add_attachment(ALICE, "TH-1", file("a.txt"), idempotency_key="k")

    assert (again.replayed, again.event_id) == (True, first.event_id)
    assert len(await attachments(world)) == 1


async def test_a_name_that_cannot_be_stored_is_refused(world: World) -> None:
    with pytest.raises(InvalidInput, match="file_name: must not contain NUL"):
        await world.tickets.add_attachment(ALICE, "TH-1", NewAttachment(file_name="a\0b", url="https://example.org/a"))
