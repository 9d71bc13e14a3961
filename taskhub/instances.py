"""All instances as one server, to those who operate it: what they do, and what becomes of a stream on any of them.

Each question is a kind of its own on the control path. A new one needs a method that asks, one that answers, and its
line in `_answerers`.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from broadcaster.control import MAX_ANSWER_BYTES, Answers, Control, UnknownQuestion
from broadcaster.engine import Broadcaster
from broadcaster.event import Event
from broadcaster.explanation import Explanation, explanation
from broadcaster.log import EventLog
from broadcaster.report import BroadcastStatistics
from broadcaster.subscriber import Subscriber
from taskhub.metrics.families import WorkerFigures
from taskhub.storage.database import Database
from taskhub.storage.seeds import DEFAULT_WORKSPACE
from taskhub.tickets.errors import StorageBusy

MAX_STREAMS: Final = 1000
"""Streams of one instance that are told of."""
PING_S: Final = 0.25
"""How long an answer waits for the database: less than others wait for the answer, wanted most when that hangs."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InstanceStatistics(BroadcastStatistics):
    """Figures of a workspace on one instance. Rates are per second, latencies milliseconds. `streams` begins with those
    that are furthest behind; `streams_left_out` of them are not told of. `refused`: by setting, how often a limit of
    the instance kept somebody out, of whatever workspace."""

    instance: str
    version: str
    draining: bool
    database: str
    streams_left_out: int
    refused: dict[str, int]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Figures of the workspace on all instances together, and on each, the one that was asked first. `partial`: not
    all have answered, so there is more than this.

    Each instance hears every event of the workspaces that it has streams of, so the rates of events are those of the
    one that hears most, not sums.
    """

    connected_clients: int
    events_sent: int
    last_event_time: str | None
    partial: bool
    events_per_s: float
    events_per_s_5m: float
    deliveries_per_s: float
    deliveries_per_s_5m: float
    streams_opened: int
    lagged: int
    resets: dict[str, int]
    ends: dict[str, int]
    buffered_bytes: int
    refused: dict[str, int]
    instances: list[InstanceStatistics]


class StreamNotFound(Exception):
    """No instance has the stream."""


class NotAllAnswered(Exception):
    """No instance that answered has the stream, and not all have answered."""


class Instances:
    """Asks every instance over the control path, and answers for this one. `draining`: whether it is about to end.
    `refused`: by setting, how often its limits kept somebody out."""

    def __init__(
        self,
        control: Control,
        broadcaster: Broadcaster,
        log: EventLog,
        database: Database,
        *,
        instance: str,
        version: str,
        draining: Callable[[], bool],
        refused: Mapping[str, int],
    ) -> None:
        self._control = control
        self._broadcaster = broadcaster
        self._log = log
        self._database = database
        self._instance = instance
        self._version = version
        self._draining = draining
        self._refused = refused
        self._answerers: Mapping[str, Callable[[bytes], Awaitable[object]]] = {
            "statistics": self._own_statistics,
            "explain": self._own_explanation,
            "end_stream": self._end_own_stream,
            "stream_replaced": self._end_own_replaced,
            "mcp_message": self._take_mcp_message,
            "credentials_changed": self._look_at_credentials,
            "metrics": self._own_figures,
        }
        self.on_stream_replaced: Callable[[Subscriber], None] | None = None
        """Ends a stream of this instance whose place another one has taken."""
        self.on_mcp_message: Callable[[bytes], Awaitable[None]] | None = None
        """Takes the messages that any instance passes on, also those of this one."""
        self.on_credentials_changed: Callable[[], Awaitable[None]] | None = None
        """Looks at what credentials are good for."""

        self.on_metrics: Callable[[str], Awaitable[WorkerFigures | None]] | None = None
        """The figures of this process; None where it is no worker of the group."""

    async def answer(self, kind: str, question: bytes) -> bytes:
        """What this instance answers (an Answerer). Raises UnknownQuestion."""
        if (answerer := self._answerers.get(kind)) is None:
            raise UnknownQuestion(kind)
        answer = await answerer(question)
        return answer if isinstance(answer, bytes) else orjson.dumps(answer)

    async def statistics(self, workspace: str, streams: int) -> Statistics:
        """The figures of a workspace on all instances; with those of up to so many streams of each."""
        answers = await self._control.ask("statistics", orjson.dumps({"workspace": workspace, "streams": streams}))
        found = _understood(answers, _STATISTICS)
        return _total(found, partial=answers.partial or len(found) < len(answers.given))

    async def explain(self, workspace: str, event: Event, stream: str) -> Explanation:
        """Why a stream of the workspace did or did not get an event. Raises StreamNotFound and NotAllAnswered."""
        question = orjson.dumps({"workspace": workspace, "stream": stream, "seq": event.seq})
        return _the_one(await self._control.ask("explain", question), _EXPLANATION)

    async def end_stream(self, workspace: str, stream: str) -> None:
        """Say goodbye to a stream of the workspace. Raises StreamNotFound and NotAllAnswered."""
        question = orjson.dumps({"workspace": workspace, "stream": stream})
        _the_one(await self._control.ask("end_stream", question), _ENDED)

    async def end_replaced(self, workspace: str, stream: str) -> None:
        """Say goodbye to a stream, if anybody has it, whose client has another one now."""
        await self._control.ask("stream_replaced", orjson.dumps({"workspace": workspace, "stream": stream}))

    async def pass_on(self, message: bytes) -> None:
        """Show all instances an MCP message: one of them may know its session."""
        await self._control.ask("mcp_message", message)

    async def metrics(self, group: str) -> list[WorkerFigures]:
        """The figures of the workers of a group, as far as they answer."""
        answers = await self._control.ask("metrics", orjson.dumps({"group": group}))
        return [each for each in _understood(answers, _FIGURES) if each is not None]

    async def _own_figures(self, question: bytes) -> WorkerFigures | None:
        return None if self.on_metrics is None else await self.on_metrics(orjson.loads(question)["group"])

    async def _take_mcp_message(self, message: bytes) -> bytes:
        if self.on_mcp_message is not None:
            await self.on_mcp_message(message)
        return b"{}"

    async def credentials_changed(self) -> None:
        """Let every instance look at once at what credentials are good for. One that does not hear it looks within a
        poll interval."""
        await self._control.ask("credentials_changed", b"{}")

    async def _look_at_credentials(self, question: bytes) -> bool:
        if self.on_credentials_changed is None:
            return False
        try:
            await self.on_credentials_changed()
        except StorageBusy as error:
            logger.debug("the credentials wait for the next poll: %s", error)
            return False
        return True

    async def _own_statistics(self, question: bytes) -> bytes:
        asked = orjson.loads(question)
        workspace, limit = str(asked["workspace"]), min(int(asked["streams"]), MAX_STREAMS)
        figures = self._broadcaster.statistics(workspace=workspace, streams=limit)
        if workspace != DEFAULT_WORKSPACE:
            # How much the others do: that is for whoever operates the deployment.
            figures = replace(figures, relay=replace(figures.relay, announced=None, received=None, dropped=None))
        own = InstanceStatistics(
            **{each.name: getattr(figures, each.name) for each in fields(figures)},
            instance=self._instance,
            version=self._version,
            draining=self._draining(),
            database=await self._database_state(),
            streams_left_out=figures.connected_clients - len(figures.streams),
            refused=dict(self._refused),
        )
        # Filters may be long: an answer that nobody can take would be worth less than a shorter one.
        while len(encoded := orjson.dumps(own)) > MAX_ANSWER_BYTES and own.streams:
            told = own.streams[: len(own.streams) // 2]
            own = replace(own, streams=told, streams_left_out=own.connected_clients - len(told))
        return encoded

    async def _own_explanation(self, question: bytes) -> Explanation | None:
        asked = orjson.loads(question)
        subscriber = self._find(asked)
        if subscriber is None:
            return None
        (event,) = await self._log.read(asked["workspace"], asked["seq"] - 1, 1)
        return explanation(event, subscriber, self._broadcaster.position_of(subscriber))

    async def _end_own_stream(self, question: bytes) -> bool | None:
        subscriber = self._find(orjson.loads(question))
        if subscriber is None:
            return None
        self._broadcaster.end(subscriber, "rotate")
        return True

    async def _end_own_replaced(self, question: bytes) -> bool | None:
        subscriber = self._find(orjson.loads(question))
        if subscriber is None or self.on_stream_replaced is None:
            return None
        self.on_stream_replaced(subscriber)
        return True

    def _find(self, asked: Mapping[str, Any]) -> Subscriber | None:
        subscriber = self._broadcaster.find(asked["stream"])
        return None if subscriber is None or subscriber.workspace != asked["workspace"] else subscriber

    async def _database_state(self) -> str:
        try:
            async with asyncio.timeout(PING_S):
                await self._database.ping()
        except StorageBusy as busy:
            return f"away: {busy}"
        except TimeoutError:
            return f"no answer within {PING_S:g} s"
        return "up"


_STATISTICS: Final = TypeAdapter(InstanceStatistics)
_EXPLANATION: Final[TypeAdapter[Explanation | None]] = TypeAdapter(Explanation | None)
_FIGURES: Final[TypeAdapter[WorkerFigures | None]] = TypeAdapter(WorkerFigures | None)
_ENDED: Final[TypeAdapter[bool | None]] = TypeAdapter(bool | None)


def _understood(answers: Answers, form: TypeAdapter[T]) -> list[T]:
    """The answers in the form expected; one of an instance whose version has another form is left out."""
    found = []
    for answer in answers.given:
        try:
            found.append(form.validate_json(answer.body))
        except ValidationError as error:
            logger.warning("the answer of instance %s is ignored: %s", answer.instance, error)
    return found


def _the_one(answers: Answers, form: TypeAdapter[T | None]) -> T:
    """The answer of the instance that has what was asked for. Raises StreamNotFound and NotAllAnswered."""
    understood = _understood(answers, form)
    for answer in understood:
        if answer is not None:
            return answer
    if answers.partial or len(understood) < len(answers.given):
        raise NotAllAnswered
    raise StreamNotFound


def _total(instances: list[InstanceStatistics], *, partial: bool) -> Statistics:
    times = [each.last_event_time for each in instances if each.last_event_time is not None]
    resets, ends, refused = Counter[str](), Counter[str](), Counter[str]()
    for each in instances:
        resets.update(each.resets)
        ends.update(each.ends)
        refused.update(each.refused)
    return Statistics(
        connected_clients=sum(each.connected_clients for each in instances),
        events_sent=sum(each.events_sent for each in instances),
        last_event_time=max(times, default=None),
        partial=partial,
        events_per_s=max((each.events_per_s for each in instances), default=0.0),
        events_per_s_5m=max((each.events_per_s_5m for each in instances), default=0.0),
        deliveries_per_s=round(sum(each.deliveries_per_s for each in instances), 3),
        deliveries_per_s_5m=round(sum(each.deliveries_per_s_5m for each in instances), 3),
        streams_opened=sum(each.streams_opened for each in instances),
        lagged=sum(each.lagged for each in instances),
        resets=dict(resets),
        ends=dict(ends),
        buffered_bytes=sum(each.buffered_bytes for each in instances),
        refused=dict(refused),
        instances=instances,
    )
