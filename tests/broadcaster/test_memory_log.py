"""The in-memory twin of the event log."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from broadcaster.event import Event, EventDraft
from broadcaster.log import random_epoch
from broadcaster.memory_log import MemoryEventLog
from tests.broadcaster.event_log_suite import NOON, EventLogSuite, drafts


class MemoryLogUnderTest:
    """The twin as the suite wants to change it."""

    def __init__(self) -> None:
        self._time = NOON
        self.reader = MemoryEventLog(clock=lambda: self._time)

    async def append(self, workspace: str, drafts: Sequence[EventDraft], time: datetime) -> list[Event]:
        self._time = time
        return self.reader.append(workspace, drafts)

    async def expire(self, workspace: str, oldest: int) -> None:
        self.reader.expire(workspace, oldest)

    async def new_epoch(self, workspace: str) -> None:
        self.reader.new_epoch(workspace)


class TestMemoryEventLog(EventLogSuite):
    @pytest.fixture
    def log(self) -> MemoryLogUnderTest:
        return MemoryLogUnderTest()


async def test_a_clock_that_was_set_back_does_not_hide_later_events() -> None:
    log = MemoryLogUnderTest()
    await log.append("one", drafts(1), NOON)
    await log.append("one", drafts(1), NOON - timedelta(hours=1))

    assert await log.reader.seq_at("one", NOON - timedelta(minutes=30)) == 2


def test_a_transient_event_is_not_stored() -> None:
    log = MemoryEventLog()

    with pytest.raises(ValueError, match="transient"):
        log.append("one", [EventDraft("build.log", "user:alice", "rest_api", b"{}", transient=True)])


def test_epochs_come_from_the_given_source_or_are_random() -> None:
    epochs = iter(["aaaaaaaa", "bbbbbbbb"])
    log = MemoryEventLog(new_epoch_id=lambda: next(epochs))

    [event] = log.append("one", drafts(1))

    assert event.id == "aaaaaaaa-1"
    assert log.new_epoch("one") == "bbbbbbbb"
    assert random_epoch() != random_epoch()
