"""What every event log must do. A test class that derives from EventLogSuite runs it over its fixture `log`."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pytest

from broadcaster.errors import PositionExpired
from broadcaster.event import Event, EventDraft, Position
from broadcaster.log import EventLog, LogBounds

NOON = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)


class LogUnderTest(Protocol):
    """A log whose two workspaces `one` and `two` exist and are empty, and what changes it."""

    reader: EventLog

    async def append(self, workspace: str, drafts: Sequence[EventDraft], time: datetime) -> Sequence[Event]:
        """Append in one transaction, at `time`; the events as they were committed."""

    async def expire(self, workspace: str, oldest: int) -> None:
        """Remove the events before `oldest`. None of them is about a ticket."""

    async def new_epoch(self, workspace: str) -> None:
        """Mint another epoch; the events stay."""


def drafts(count: int, first: int = 1) -> list[EventDraft]:
    return [
        EventDraft("build.finished", "user:alice", "rest_api", b'{"n":%d}' % n, subject=f"repo/{n}")
        for n in range(first, first + count)
    ]


class EventLogSuite:
    async def test_an_empty_log_has_head_0_and_oldest_1(self, log: LogUnderTest) -> None:
        bounds = await log.reader.bounds("one")

        assert (bounds.oldest, bounds.head) == (1, 0)
        assert str(Position.parse(f"{bounds.epoch}-0")) == f"{bounds.epoch}-0"
        assert list(await log.reader.read("one", 0, 10)) == []

    async def test_events_get_dense_places_in_order(self, log: LogUnderTest) -> None:
        first = await log.append("one", drafts(2), NOON)
        second = await log.append("one", drafts(3, 3), NOON)

        bounds = await log.reader.bounds("one")
        assert [event.seq for event in (*first, *second)] == [1, 2, 3, 4, 5]
        assert (bounds.oldest, bounds.head) == (1, 5)
        assert [event.parsed["n"] for event in await log.reader.read("one", 0, 100)] == [1, 2, 3, 4, 5]

    async def test_appending_nothing_changes_nothing(self, log: LogUnderTest) -> None:
        before = await log.reader.bounds("one")

        assert list(await log.append("one", [], NOON)) == []
        assert await log.reader.bounds("one") == before

    async def test_an_event_is_read_as_it_was_committed(self, log: LogUnderTest) -> None:
        data = '{"text":"受付 \\n ✓","number":1.5,"nothing":null}'.encode()
        full = EventDraft(
            "ticket.commented", "agent:triage", "mcp_tool", data, subject="TH-1", ticket_version=17,
            request_id="r1", batch_id="b1", trace=f"00-{'1' * 32}-{'2' * 16}-01",
        )  # fmt: skip
        bare = EventDraft("build.finished", "user:alice", "rest_api", b"{}")

        committed = await log.append("one", [full, bare], NOON + timedelta(milliseconds=123))
        read = await log.reader.read("one", 0, 10)

        assert [event.encoded for event in read] == [event.encoded for event in committed]
        for event, draft in zip(read, (full, bare), strict=True):
            assert (event.type, event.actor, event.origin) == (draft.type, draft.actor, draft.origin)
            assert (event.subject, event.ticket_version) == (draft.subject, draft.ticket_version)
        assert read[0].parsed == {"text": "受付 \n ✓", "number": 1.5, "nothing": None}
        assert read[0].time == "2026-11-20T12:00:00.123Z"
        assert read[0].id == read[0].position == f"{(await log.reader.bounds('one')).epoch}-1"
        assert not read[0].transient
        assert read[0].workspace == "one"

    async def test_a_read_begins_after_a_place_and_takes_no_more_than_asked(self, log: LogUnderTest) -> None:
        await log.append("one", drafts(10), NOON)

        assert [event.seq for event in await log.reader.read("one", 4, 3)] == [5, 6, 7]
        assert [event.seq for event in await log.reader.read("one", 8, 100)] == [9, 10]
        assert list(await log.reader.read("one", 10, 100)) == []
        assert list(await log.reader.read("one", 99, 100)) == []

    async def test_workspaces_know_nothing_of_each_other(self, log: LogUnderTest) -> None:
        await log.append("one", drafts(3), NOON)
        await log.append("two", drafts(1), NOON)

        one, two = await log.reader.bounds("one"), await log.reader.bounds("two")
        assert (one.head, two.head) == (3, 1)
        assert one.epoch != two.epoch
        assert [event.workspace for event in await log.reader.read("two", 0, 10)] == ["two"]

    async def test_heads_are_the_bounds_of_each(self, log: LogUnderTest) -> None:
        await log.append("one", drafts(3), NOON)
        await log.expire("one", 2)

        heads = await log.reader.heads(["one", "two"])

        assert heads == {"one": await log.reader.bounds("one"), "two": await log.reader.bounds("two")}
        assert isinstance(heads["one"], LogBounds)
        assert (heads["one"].oldest, heads["one"].head) == (2, 3)
        assert await log.reader.heads([]) == {}

    async def test_a_place_before_the_oldest_event_has_expired(self, log: LogUnderTest) -> None:
        await log.append("one", drafts(10), NOON)
        await log.expire("one", 5)

        bounds = await log.reader.bounds("one")
        assert (bounds.oldest, bounds.head) == (5, 10)
        assert [event.seq for event in await log.reader.read("one", 4, 3)] == [5, 6, 7]
        with pytest.raises(PositionExpired) as expired:
            await log.reader.read("one", 3, 3)
        assert (expired.value.after, expired.value.oldest) == (3, 5)

    async def test_a_log_that_has_expired_entirely_goes_on_where_it_was(self, log: LogUnderTest) -> None:
        await log.append("one", drafts(3), NOON)
        await log.expire("one", 4)

        bounds = await log.reader.bounds("one")
        assert (bounds.oldest, bounds.head) == (4, 3)
        assert list(await log.reader.read("one", 3, 10)) == []
        with pytest.raises(PositionExpired):
            await log.reader.read("one", 2, 10)

        await log.append("one", drafts(1, 4), NOON)
        assert [event.seq for event in await log.reader.read("one", 3, 10)] == [4]

    async def test_a_time_leads_to_the_last_event_at_or_before_it(self, log: LogUnderTest) -> None:
        await log.append("one", drafts(2), NOON)
        await log.append("one", drafts(1, 3), NOON + timedelta(minutes=1))
        await log.append("one", drafts(1, 4), NOON + timedelta(minutes=2))

        async def seq_at(**after: float) -> int:
            return await log.reader.seq_at("one", NOON + timedelta(**after))

        assert await seq_at(seconds=-1) == 0
        assert await seq_at() == 2
        assert await seq_at(seconds=59) == 2
        assert await seq_at(minutes=1) == 3
        assert await seq_at(days=1) == 4
        assert await log.reader.seq_at("two", NOON) == 0

    async def test_a_time_before_what_is_left_leads_to_just_before_the_oldest(self, log: LogUnderTest) -> None:
        await log.append("one", drafts(4), NOON)
        await log.expire("one", 3)

        assert await log.reader.seq_at("one", NOON - timedelta(days=1)) == 2
        assert await log.reader.seq_at("one", NOON) == 4

    async def test_a_new_epoch_changes_positions_and_no_ids(self, log: LogUnderTest) -> None:
        committed = await log.append("one", drafts(2), NOON)
        before = await log.reader.bounds("one")
        await log.new_epoch("one")

        after = await log.reader.bounds("one")
        read = await log.reader.read("one", 0, 10)
        assert after.epoch != before.epoch
        assert (after.oldest, after.head) == (before.oldest, before.head)
        assert [event.encoded for event in read] == [event.encoded for event in committed]
        assert [event.position for event in read] == [f"{after.epoch}-1", f"{after.epoch}-2"]
        [appended] = await log.append("one", drafts(1, 3), NOON)
        assert appended.id == appended.position == f"{after.epoch}-3"

    async def test_many_at_once_leave_no_hole_and_no_double(self, log: LogUnderTest) -> None:
        appended = await asyncio.gather(*(log.append("one", drafts(3), NOON) for _ in range(20)))

        read = await log.reader.read("one", 0, 100)
        assert [event.seq for event in read] == list(range(1, 61))
        assert all([event.seq for event in part] == list(range(part[0].seq, part[0].seq + 3)) for part in appended)
        assert {event.id for part in appended for event in part} == {event.id for event in read}
