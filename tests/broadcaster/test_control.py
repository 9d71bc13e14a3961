"""The control path: what one asks, all answer, and who is missing is not passed over in silence."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack

import pytest
import redis

from broadcaster import relayed_control
from broadcaster.control import MAX_ANSWER_BYTES, MAX_QUESTION_BYTES, Answers, Control, LocalControl, UnknownQuestion
from broadcaster.redis_relay import RedisRelay
from broadcaster.relay import Announcement
from broadcaster.relayed_control import RelayedControl
from tests.broadcaster.test_relay import Ear, Publisher, is_up
from tests.e2e.harness.waiting import until
from tests.servers import RedisServer

PREFIX = "taskhub:test"
PATIENT_S = 30.0
"""For questions that everybody answers: no test waits so long."""

Make = Callable[..., Awaitable[Control]]


class Instance:
    """What answers: its name and what it was asked. `silent` lets it think for ever."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[tuple[str, bytes]] = []
        self.silent = False
        self.running = 0

    async def answer(self, kind: str, question: bytes) -> bytes:
        self.asked.append((kind, question))
        if kind == "size":
            return b"x" * int(question)
        if kind != "name":
            raise UnknownQuestion(kind)
        if self.silent:
            self.running += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.running -= 1
        return self.name.encode() + b"\n" + question


def bodies(answers: Answers) -> dict[str, bytes]:
    return {answer.instance: answer.body for answer in answers.given}


@pytest.fixture
def server() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


class Instances:
    """Instances on one Redis, each with its relay and its control path."""

    def __init__(self, server: RedisServer, stack: AsyncExitStack) -> None:
        self._server = server
        self._stack = stack
        self.relays: list[RedisRelay] = []
        self.ears: list[Ear] = []

    async def add(self, instance: Instance, *, patience_s: float = PATIENT_S) -> RelayedControl:
        relay = RedisRelay(self._server.url, channel_prefix=PREFIX, instance=instance.name, ping_interval_s=30)
        control = RelayedControl(relay, instance.name, patience_s=patience_s)
        control.start(instance.answer)
        ear = Ear()
        relay.watch("default")
        await relay.start(ear)
        self._stack.push_async_callback(relay.stop)
        self._stack.push_async_callback(control.stop)
        await is_up(relay)
        self.relays.append(relay)
        self.ears.append(ear)
        return control


@pytest.fixture
def instances(server: RedisServer, stack: AsyncExitStack) -> Instances:
    return Instances(server, stack)


# What holds for every control path


@pytest.fixture(params=["local", "relayed"])
async def alone(request: pytest.FixtureRequest, stack: AsyncExitStack) -> tuple[Control, Instance]:
    """The control path of an instance that is alone."""
    instance = Instance("a")
    if request.param == "relayed":
        return await Instances(request.getfixturevalue("server"), stack).add(instance), instance
    control = LocalControl("a")
    control.start(instance.answer)
    stack.push_async_callback(control.stop)
    return control, instance


async def test_who_is_alone_answers_itself_and_that_is_all(alone: tuple[Control, Instance]) -> None:
    control, instance = alone

    answers = await control.ask("name", b"q")

    assert (bodies(answers), answers.partial) == ({"a": b"a\nq"}, False)
    assert instance.asked == [("name", b"q")]


async def test_a_question_that_this_instance_does_not_know_is_an_error(alone: tuple[Control, Instance]) -> None:
    control, _ = alone

    with pytest.raises(UnknownQuestion, match="colour"):
        await control.ask("colour", b"")


async def test_a_question_that_is_too_long_is_asked_of_nobody(alone: tuple[Control, Instance]) -> None:
    control, instance = alone

    with pytest.raises(ValueError, match=str(MAX_QUESTION_BYTES)):
        await control.ask("name", b"x" * (MAX_QUESTION_BYTES + 1))
    assert (await control.ask("name", b"x" * MAX_QUESTION_BYTES)).partial is False
    assert len(instance.asked) == 1


async def test_many_questions_at_once_get_their_own_answers(alone: tuple[Control, Instance]) -> None:
    control, _ = alone
    questions = [str(number).encode() for number in range(relayed_control.MAX_ASKING)]

    answers = await asyncio.gather(*(control.ask("name", question) for question in questions))

    assert [bodies(each) for each in answers] == [{"a": b"a\n" + question} for question in questions]
    assert not any(each.partial for each in answers)


# Several instances


async def test_every_instance_answers_whoever_asks_and_the_asker_comes_first(instances: Instances) -> None:
    a, b, c = [await instances.add(Instance(name)) for name in "abc"]

    for control, name in ((a, "a"), (b, "b"), (c, "c")):
        answers = await control.ask("name", b"two\nlines")

        assert answers.given[0].instance == name
        assert bodies(answers) == {each: each.encode() + b"\ntwo\nlines" for each in "abc"}
        assert not answers.partial


async def test_deployments_on_one_redis_do_not_answer_each_other(
    server: RedisServer, instances: Instances, stack: AsyncExitStack
) -> None:
    a = await instances.add(Instance("a"))
    other = RedisRelay(server.url, channel_prefix="taskhub:other", instance="o", ping_interval_s=30)
    stranger = Instance("o")
    RelayedControl(other, "o").start(stranger.answer)
    await other.start(Ear())
    stack.push_async_callback(other.stop)
    await is_up(other)

    answers = await a.ask("name", b"")

    assert (list(bodies(answers)), answers.partial, stranger.asked) == (["a"], False, [])


async def test_an_instance_that_hangs_makes_the_answers_partial_and_its_late_answer_is_nobodys(
    instances: Instances,
) -> None:
    hanging = Instance("b")
    hanging.silent = True
    a = await instances.add(Instance("a"), patience_s=0.2)
    await instances.add(hanging)
    await instances.add(Instance("c"))

    answers = await a.ask("name", b"")
    hanging.silent = False
    again = await a.ask("name", b"")

    assert answers.partial
    assert "a" in bodies(answers)
    assert "b" not in bodies(answers)
    # Not so soon that a slow machine could not have answered.
    assert again.partial is (set(bodies(again)) != {"a", "b", "c"})


@pytest.mark.parametrize("kind", ["colour", "size"])
async def test_an_answer_that_cannot_be_given_makes_the_answers_partial(instances: Instances, kind: str) -> None:
    class Knows(Instance):
        async def answer(self, kind: str, question: bytes) -> bytes:
            return b"blue"

    other = Instance("b")
    a = await instances.add(Knows("a"), patience_s=0.2)
    await instances.add(other)

    answers = await a.ask(kind, str(MAX_ANSWER_BYTES + 1).encode())

    assert (bodies(answers), answers.partial) == ({"a": b"blue"}, True)
    await until(lambda: other.asked, "question")


async def test_the_largest_answer_arrives_whole(instances: Instances) -> None:
    a = await instances.add(Instance("a"))
    await instances.add(Instance("b"))

    answers = await a.ask("size", str(MAX_ANSWER_BYTES).encode())

    assert [len(body) for body in bodies(answers).values()] == [MAX_ANSWER_BYTES] * 2
    assert not answers.partial


async def test_more_questions_than_may_be_under_way_are_answered_by_this_instance_alone(instances: Instances) -> None:
    hanging = Instance("b")
    hanging.silent = True
    a = await instances.add(Instance("a"))
    await instances.add(hanging)
    waiting = [asyncio.create_task(a.ask("name", b"")) for _ in range(relayed_control.MAX_ASKING)]
    await until(lambda: hanging.running == relayed_control.MAX_ANSWERING, "questions under way")

    answers = await a.ask("name", b"one more")

    assert (bodies(answers), answers.partial) == ({"a": b"a\none more"}, True)
    assert len(hanging.asked) == relayed_control.MAX_ANSWERING
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_no_more_questions_are_answered_at_once_than_is_agreed_whoever_asks(
    instances: Instances, server: RedisServer
) -> None:
    hanging = Instance("a")
    hanging.silent = True
    await instances.add(hanging)
    question = b'{"instance":"x","request":"%d","kind":"name"}\n'

    with redis.Redis.from_url(server.url) as operator:
        for number in range(3 * relayed_control.MAX_ANSWERING):
            operator.publish(f"{PREFIX}/control", question % number)
    await until(lambda: hanging.running == relayed_control.MAX_ANSWERING, "questions under way")
    await instances.relays[0].send("control", b"null")  # heard after all of these

    assert len(hanging.asked) == relayed_control.MAX_ANSWERING


async def test_without_redis_this_instance_answers_alone_and_at_once(instances: Instances, server: RedisServer) -> None:
    a = await instances.add(Instance("a"))  # whose patience would outlast this test
    await instances.add(Instance("b"))
    server.kill()
    await until(lambda: instances.relays[0].statistics().state == "down", "loss")

    answers = await a.ask("name", b"")

    assert (bodies(answers), answers.partial) == ({"a": b"a\n"}, True)

    server.start()
    await is_up(*instances.relays)
    assert set(bodies(await a.ask("name", b""))) == {"a", "b"}


async def test_a_redis_that_hangs_is_waited_for_only_so_long(instances: Instances, server: RedisServer) -> None:
    a = await instances.add(Instance("a"), patience_s=0.2)
    await instances.add(Instance("b"))
    server.pause()
    try:
        answers = await a.ask("name", b"")
    finally:
        server.resume()

    assert (bodies(answers), answers.partial) == ({"a": b"a\n"}, True)


NO_MESSAGES = [
    b"",
    b"\xff",
    b"[]",
    b"null",
    b"{}",
    b'{"instance":7,"request":"r","kind":"name"}',
    b'{"instance":"a b","request":"r","kind":"name"}',
    b'{"instance":"b","request":[],"kind":"name"}\nq',
]
NO_QUESTIONS = [
    b'{"instance":"b","request":"r"}\nq',
    b'{"instance":"b","request":"r","kind":7}\nq',
    b'{"instance":"b","request":"r","kind":"name"}\n' + b"x" * (2 * MAX_QUESTION_BYTES),
]
NO_ANSWERS = [b'{"instance":"b"}\n', b'{"instance":"b","request":"r"}\n' + b"x" * (2 * MAX_ANSWER_BYTES)]


@pytest.mark.parametrize(
    ("channel", "messages"), [("control", NO_MESSAGES + NO_QUESTIONS), ("control/a", NO_MESSAGES + NO_ANSWERS)]
)
async def test_messages_that_are_none_are_ignored_with_one_warning(
    instances: Instances,
    server: RedisServer,
    caplog: pytest.LogCaptureFixture,
    channel: str,
    messages: Sequence[bytes],
) -> None:
    instance = Instance("a")
    a = await instances.add(instance)
    caplog.set_level(logging.DEBUG, "broadcaster.relayed_control")

    with redis.Redis.from_url(server.url) as operator:
        for message in messages:
            operator.publish(f"{PREFIX}/{channel}", message)
    answers = await a.ask("name", b"")
    await until(lambda: len(caplog.records) >= len(messages), "records of all", explain=lambda: caplog.text)

    assert (bodies(answers), answers.partial) == ({"a": b"a\n"}, False)
    assert [record.levelname for record in caplog.records] == ["WARNING"] + ["DEBUG"] * (len(messages) - 1)
    assert all(record.getMessage().startswith("a control message is ignored") for record in caplog.records)
    assert len(instance.asked) == 1


async def test_events_go_out_while_questions_wait(instances: Instances) -> None:
    hanging = Instance("b")
    hanging.silent = True
    a = await instances.add(Instance("a"))
    await instances.add(hanging)
    asking = [asyncio.create_task(a.ask("name", b"x" * MAX_QUESTION_BYTES)) for _ in range(relayed_control.MAX_ASKING)]
    await until(lambda: hanging.running, "a question under way")
    publisher = Publisher()
    announced: Sequence[Announcement] = [publisher.announcement() for _ in range(100)]

    for announcement in announced:
        instances.relays[0].announce(announcement)
    await until(lambda: len(instances.ears[1].ids) == 100, "events")

    assert instances.ears[1].ids == [event.id for each in announced for event in each.events]
    assert not any(task.done() for task in asking)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_after_its_end_it_answers_nobody(instances: Instances) -> None:
    hanging = Instance("b")
    hanging.silent = True
    a = await instances.add(Instance("a"), patience_s=0.2)
    b = await instances.add(hanging)
    asking = asyncio.create_task(a.ask("name", b""))
    await until(lambda: hanging.running, "a question under way")

    await b.stop()
    assert hanging.running == 0
    assert (await asking).partial
    assert (await a.ask("name", b"")).partial
    assert len(hanging.asked) == 1
