"""Pages of the log are read once for all who need them, and never taken for more than the log had."""

import asyncio
from collections.abc import Sequence

import pytest

from broadcaster import pages as pages_module
from broadcaster.errors import LogUnavailable, PositionExpired
from broadcaster.event import Event
from broadcaster.memory_log import MemoryEventLog
from broadcaster.pages import LogPages
from broadcaster.ring import weight
from broadcaster.turns import Turns
from tests.broadcaster.streams import WORKSPACE, numbered, settle


class CountingLog(MemoryEventLog):
    """Counts its reads, and holds them while `closed`."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[int, int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.fails: list[Exception] = []

    async def read(self, workspace: str, after: int, limit: int) -> Sequence[Event]:
        self.reads.append((after, limit))
        await self.open.wait()
        if self.fails:
            raise self.fails.pop()
        return await super().read(workspace, after, limit)

    def extend(self, count: int) -> None:
        self.append(WORKSPACE, [numbered(0) for _ in range(count)])


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> CountingLog:
    monkeypatch.setattr(pages_module, "PAGE", 10)
    return CountingLog()


async def pages_of(log: CountingLog, max_bytes: int = 1_000_000) -> LogPages:
    turns = Turns(asyncio.get_running_loop().call_soon)
    return LogPages(WORKSPACE, log, (await log.bounds(WORKSPACE)).epoch, turns, max_bytes)


async def seqs(pages: LogPages, after: int) -> list[int]:
    return [event.seq for event in await pages.after(after)]


async def test_different_positions_share_one_read_of_their_page(log: CountingLog) -> None:
    log.extend(30)
    pages = await pages_of(log)

    found = await asyncio.gather(*(seqs(pages, after) for after in (12, 10, 19, 15) * 50))

    assert found[:4] == [list(range(13, 21)), list(range(11, 21)), [20], list(range(16, 21))]
    assert log.reads == [(10, 10)]


async def test_a_page_that_the_log_has_in_part_is_read_on_when_more_is_wanted(log: CountingLog) -> None:
    log.extend(13)
    pages = await pages_of(log)
    at_first = await seqs(pages, 11)
    at_the_end = await seqs(pages, 13)

    log.extend(4)

    assert (at_first, at_the_end) == ([12, 13], [])
    assert await seqs(pages, 13) == [14, 15, 16, 17]
    assert await seqs(pages, 11) == [12, 13, 14, 15, 16, 17]
    assert log.reads == [(10, 10), (13, 7), (13, 7)]


async def test_retention_that_took_a_pages_beginning_leaves_its_rest(log: CountingLog) -> None:
    log.extend(20)
    log.expire(WORKSPACE, 15)
    pages = await pages_of(log)

    assert await seqs(pages, 16) == [17, 18, 19, 20]
    assert await seqs(pages, 14) == [15, 16, 17, 18, 19, 20]
    for gone in (12, 3):
        with pytest.raises(PositionExpired):
            await pages.after(gone)


async def test_pages_that_retention_removed_are_given_up(log: CountingLog) -> None:
    log.extend(20)
    pages = await pages_of(log)
    await pages.after(5)
    log.expire(WORKSPACE, 12)

    pages.expire(12)

    with pytest.raises(PositionExpired):
        await pages.after(5)


async def test_nothing_of_an_older_log_is_served_after_it_began_anew(log: CountingLog) -> None:
    log.extend(10)
    pages = await pages_of(log)
    await pages.after(0)
    log.open.clear()
    late = asyncio.create_task(seqs(pages, 10))
    await settle()
    epoch = log.new_epoch(WORKSPACE)

    pages.clear(epoch)
    log.open.set()
    await late

    assert {event.epoch for event in await pages.after(0)} == {epoch}
    assert {event.epoch for event in await pages.after(2)} == {epoch}


async def test_events_of_an_epoch_that_is_not_known_yet_are_not_served(log: CountingLog) -> None:
    log.extend(10)
    pages = await pages_of(log)
    epoch = log.new_epoch(WORKSPACE)

    before = await seqs(pages, 0)
    pages.clear(epoch)

    assert before == []
    assert await seqs(pages, 0) == list(range(1, 11))


async def test_everyone_who_waits_hears_of_a_failure_and_the_next_read_is_a_new_one(log: CountingLog) -> None:
    log.extend(5)
    log.fails = [LogUnavailable("away")]
    pages = await pages_of(log)

    failed = await asyncio.gather(*(pages.after(n) for n in range(4)), return_exceptions=True)

    assert [type(error) for error in failed] == [LogUnavailable] * 4
    assert len({id(error) for error in failed}) == 4
    assert await seqs(pages, 0) == [1, 2, 3, 4, 5]


async def test_a_read_goes_on_for_the_others_when_the_first_to_ask_leaves(log: CountingLog) -> None:
    log.extend(10)
    log.open.clear()
    pages = await pages_of(log)
    first, second = asyncio.create_task(pages.after(0)), asyncio.create_task(seqs(pages, 4))
    await settle()

    first.cancel()
    log.open.set()

    assert await second == [5, 6, 7, 8, 9, 10]
    assert len(log.reads) == 1


async def test_pages_are_bounded_by_weight_and_the_least_recently_used_goes_first(log: CountingLog) -> None:
    log.extend(40)
    (event,) = await log.read(WORKSPACE, 0, 1)
    pages = await pages_of(log, max_bytes=25 * weight(event))
    for after in (0, 10, 0, 20):
        await pages.after(after)
    log.reads.clear()

    await pages.after(0)
    await pages.after(20)
    kept = list(log.reads)
    await pages.after(10)

    assert (kept, log.reads) == ([], [(10, 10)])


async def test_stopping_ends_the_reads_that_are_under_way(log: CountingLog) -> None:
    log.open.clear()
    pages = await pages_of(log)
    waiting = asyncio.create_task(pages.after(0))
    await settle()

    await pages.stop()
    waiting.cancel()

    assert log.reads == [(0, 10)]
    assert not pages._tasks
