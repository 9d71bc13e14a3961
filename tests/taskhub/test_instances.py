"""What operators learn of all instances, when one of them has no answer that can be understood."""

import logging
from collections.abc import AsyncIterator

import pytest

from broadcaster.control import Answer, Answerer, Answers, LocalControl
from broadcaster.engine import Broadcaster
from broadcaster.event import Event, EventDraft
from broadcaster.memory_log import MemoryEventLog
from broadcaster.options import BroadcastOptions
from broadcaster.relay import LocalRelay
from broadcaster.stream import StreamRequest
from broadcaster.subscriber import Subscriber
from taskhub import instances as instances_module
from taskhub.instances import Instances, NotAllAnswered, StreamNotFound
from taskhub.storage.database import Database


class WithNeighbour(LocalControl):
    """A control path with one more instance, which answers `said` to everything."""

    said: bytes | None = None

    async def ask(self, kind: str, question: bytes) -> Answers:
        answers = await super().ask(kind, question)
        return answers if self.said is None else Answers([*answers.given, Answer("b", self.said)], partial=False)


@pytest.fixture
def control() -> WithNeighbour:
    return WithNeighbour("a")


@pytest.fixture
def log() -> MemoryEventLog:
    return MemoryEventLog()


@pytest.fixture
async def broadcaster(log: MemoryEventLog) -> AsyncIterator[Broadcaster]:
    broadcaster = Broadcaster(log, LocalRelay(), BroadcastOptions(instance="a", version="1"))
    await broadcaster.start()
    yield broadcaster
    await broadcaster.stop()


@pytest.fixture
def instances(control: WithNeighbour, broadcaster: Broadcaster, log: MemoryEventLog, database: Database) -> Instances:
    instances = Instances(
        control, broadcaster, log, database, instance="a", version="1", draining=lambda: False, refused={}
    )
    answer: Answerer = instances.answer
    control.start(answer)
    return instances


@pytest.fixture
async def subscriber(broadcaster: Broadcaster) -> AsyncIterator[Subscriber]:
    subscriber = await broadcaster.admit("default", StreamRequest())
    yield subscriber
    subscriber.disconnected()


@pytest.fixture
def event(log: MemoryEventLog) -> Event:
    (event,) = log.append("default", [EventDraft("build.finished", "user:alice", "rest_api", b"{}")])
    return event


async def test_a_stream_of_another_workspace_is_not_there(
    instances: Instances, subscriber: Subscriber, event: Event
) -> None:
    with pytest.raises(StreamNotFound):
        await instances.end_stream("other", subscriber.id)
    with pytest.raises(StreamNotFound):
        await instances.explain("other", event, subscriber.id)
    assert not subscriber.ended()

    assert (await instances.explain("default", event, subscriber.id)).stream == subscriber.id
    await instances.end_stream("default", subscriber.id)
    assert subscriber.ended()


@pytest.mark.parametrize("said", [b"", b"{}", b"[]", b"7", b'{"instance":"b"}'])
async def test_what_an_instance_of_another_version_says_is_left_out_and_missed(
    instances: Instances, control: WithNeighbour, event: Event, caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    control.said = said
    caplog.set_level(logging.WARNING)

    figures = await instances.statistics("default", 10)
    with pytest.raises(NotAllAnswered):
        await instances.explain("default", event, "st_elsewhere")
    with pytest.raises(NotAllAnswered):
        await instances.end_stream("default", "st_elsewhere")

    assert ([each.instance for each in figures.instances], figures.partial) == (["a"], True)
    assert "the answer of instance b is ignored" in caplog.text


async def test_figures_are_summed_where_a_sum_says_something(
    instances: Instances, control: WithNeighbour, subscriber: Subscriber
) -> None:
    alone = await instances.statistics("default", 10)
    # The neighbour does exactly the same.
    control.said = await instances.answer("statistics", b'{"workspace":"default","streams":10}')
    together = await instances.statistics("default", 10)

    assert [len(each.streams) for each in together.instances] == [1, 1]
    assert (alone.connected_clients, together.connected_clients) == (1, 2)
    assert (alone.streams_opened, together.streams_opened) == (1, 2)
    assert together.events_per_s == alone.events_per_s
    assert not together.partial


async def test_as_many_streams_are_told_of_as_an_answer_has_room_for(
    instances: Instances, broadcaster: Broadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = [await broadcaster.admit("default", StreamRequest()) for _ in range(40)]
    monkeypatch.setattr(instances_module, "MAX_ANSWER_BYTES", 8000)

    (own,) = (await instances.statistics("default", 40)).instances
    for stream in streams:
        stream.disconnected()

    assert 0 < len(own.streams) < 40
    assert len(own.streams) + own.streams_left_out == own.connected_clients == 40
