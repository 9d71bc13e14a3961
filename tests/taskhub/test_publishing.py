"""Events of clients' own."""

import pytest

from broadcaster.errors import InvalidEvent
from broadcaster.event import EventDraft
from taskhub.auth.errors import Forbidden
from taskhub.publishing import EventPublisher
from taskhub.tickets.errors import IdempotencyMismatch, InvalidInput
from tests.taskhub.world import ALICE, World, caller


def draft(type: str = "build.finished", subject: str | None = "repo/main", data: bytes = b'{"ok":true}') -> EventDraft:
    return EventDraft(type, "user:alice", "rest_api", data, subject, request_id="r-1")


async def test_a_batch_gets_contiguous_places_in_the_order_given(world: World) -> None:
    await world.create()
    published = await EventPublisher(world.writer).publish(ALICE, [draft(subject=f"repo/{n}") for n in range(5)])

    assert [event.seq for event in published.events] == [2, 3, 4, 5, 6]
    assert [event.subject for event in published.events] == [f"repo/{n}" for n in range(5)]
    assert published.position == published.events[-1].position
    assert world.heard[1:] == list(published.events)
    stored = await world.log.read("default", 1, 10)
    assert [event.encoded for event in stored] == [event.encoded for event in published.events]


async def test_data_stays_as_it_was_sent(world: World) -> None:
    data = '{ "b": 1.0, "a": "\\u0000 日本",  "b2": 1e400 }'.encode()
    await EventPublisher(world.writer).publish(ALICE, [draft(data=data)])

    [stored] = await world.log.read("default", 0, 1)
    assert stored.data == data


async def test_all_or_nothing(world: World) -> None:
    publisher = EventPublisher(world.writer)
    batch = [
        draft(),
        draft(type="ticket.created"),
        draft(subject="a\nb"),
        draft(type="nodots"),
        draft(data=b"x" * 65_537),
    ]
    with pytest.raises(InvalidEvent) as refused:
        await publisher.publish(ALICE, batch)

    assert [problem.parameter for problem in refused.value.problems] == [
        "events/1/type", "events/2/subject", "events/3/type", "events/4/data",
    ]  # fmt: skip
    assert world.heard == []


@pytest.mark.parametrize("count", [0, 501])
async def test_a_batch_has_1_to_500_events(world: World, count: int) -> None:
    with pytest.raises(InvalidEvent, match="500"):
        await EventPublisher(world.writer).publish(ALICE, [draft()] * count)


async def test_500_events_are_one_commit(world: World) -> None:
    published = await EventPublisher(world.writer).publish(ALICE, [draft()] * 500)

    assert len(await world.log.read("default", 0, 1000)) == len(published.events) == 500


async def test_the_same_key_publishes_once(world: World) -> None:
    publisher = EventPublisher(world.writer)
    batch = [draft(subject="one"), draft(subject="two")]
    first = await publisher.publish(ALICE, batch, "k")
    again = await publisher.publish(ALICE, batch, "k")
    with pytest.raises(IdempotencyMismatch):
        await publisher.publish(ALICE, batch[:1], "k")
    with pytest.raises(InvalidInput):
        await publisher.publish(ALICE, batch, "two words")

    assert (first.replayed, again.replayed) == (False, True)
    assert [event.encoded for event in again.events] == [event.encoded for event in first.events]
    assert again.position == first.position
    assert len(world.heard) == 2


async def test_publishing_needs_its_scope(world: World) -> None:
    with pytest.raises(Forbidden, match="events:publish"):
        await EventPublisher(world.writer).publish(caller(scopes=["events:read"]), [draft()])


async def test_the_servers_own_events_may_have_reserved_types(world: World) -> None:
    own = EventDraft("taskhub.test", "user:operator", "system", b"{}")
    published = await EventPublisher(world.writer).publish(ALICE, [own])

    assert published.events[0].type == "taskhub.test"


async def test_transient_events_are_not_stored(world: World) -> None:
    with pytest.raises(ValueError, match="transient"):
        await EventPublisher(world.writer).publish(ALICE, [EventDraft("a.b", "x:y", "rest_api", b"{}", transient=True)])
