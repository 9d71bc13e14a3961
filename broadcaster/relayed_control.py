"""The control path between instances, on the connections that their relays have.

A question goes out on a channel that every instance hears, and each answers on a channel that only the asker hears:

    <prefix>/control       {"instance":"a3","request":"5b1f…","kind":"end_stream"}      a line, then the question
    <prefix>/control/a3    {"instance":"b7","request":"5b1f…"}                          a line, then the answer

How many heard the question is what the carrier says, so nobody has to know who the others are.
"""

import asyncio
import logging
import re
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

import orjson

from broadcaster.control import (
    MAX_ANSWER_BYTES,
    MAX_QUESTION_BYTES,
    Answer,
    Answerer,
    Answers,
    UnknownQuestion,
    check_question,
)
from broadcaster.errors import BroadcasterError

MAX_ASKING: Final = 16
"""Questions of this instance under way; a further one is answered by this instance alone."""
MAX_ANSWERING: Final = 16
"""Questions of others that are being answered here; a further one is not, and its asker told of a partial answer."""

_CHANNEL: Final = "control"
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HEADER_BYTES: Final = 1024

logger = logging.getLogger(__name__)


class CarrierAway(BroadcasterError):
    """Messages cannot be carried now."""


class Carrier(Protocol):
    """What brings messages to every instance that listens. At most once."""

    def carry(self, name: str, hear: Callable[[bytes], None]) -> None:
        """Call `hear` with each message under this name, one's own included. Before the carrier starts."""

    async def send(self, name: str, message: bytes) -> int:
        """Send; answers how many instances received it, this one included if it listens. Raises CarrierAway, at once
        when that is known."""


class RelayedControl:
    """A Control between all instances that share a carrier. An answer counts that comes within `patience_s`."""

    def __init__(self, carrier: Carrier, instance: str, *, patience_s: float = 0.5) -> None:
        self._carrier = carrier
        self._instance = instance
        self._patience_s = patience_s
        self._answer: Answerer | None = None
        self._asking: dict[str, _Asked] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._warned = False

    def start(self, answer: Answerer) -> None:
        self._answer = answer
        self._carrier.carry(_CHANNEL, partial(self._hear, self._asked, MAX_QUESTION_BYTES))
        self._carrier.carry(f"{_CHANNEL}/{self._instance}", partial(self._hear, self._answered, MAX_ANSWER_BYTES))

    async def stop(self) -> None:
        self._answer = None
        answering = list(self._answering)
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)

    async def ask(self, kind: str, question: bytes) -> Answers:
        check_question(question)
        if self._answer is None:
            raise RuntimeError("the control path was not started")
        if len(self._asking) >= MAX_ASKING:
            return Answers([await self._own(self._answer, kind, question)], partial=True)
        request = secrets.token_hex(8)
        asked = self._asking[request] = _Asked()
        deadline = asyncio.get_running_loop().time() + self._patience_s
        try:
            header = {"instance": self._instance, "request": request, "kind": kind}
            try:
                async with asyncio.timeout_at(deadline):
                    received = await self._carrier.send(_CHANNEL, orjson.dumps(header) + b"\n" + question)
            except (CarrierAway, TimeoutError):
                received = 0
            own = await self._own(self._answer, kind, question)
            # This instance has received it, too, and needs no answer of itself.
            everybody = await asked.heard_of(received - 1, deadline)
            return Answers([own, *asked.answers.values()], partial=not everybody)
        finally:
            del self._asking[request]

    async def _own(self, answer: Answerer, kind: str, question: bytes) -> Answer:
        return Answer(self._instance, await answer(kind, question))

    def _hear(self, take: Callable[[dict[str, Any], bytes], None], limit: int, message: bytes) -> None:
        try:
            if len(message) > limit + _HEADER_BYTES:
                raise ValueError(f"it has {len(message)} bytes")
            head, _, body = message.partition(b"\n")
            header = orjson.loads(head)
            if not _NAME.fullmatch(header["instance"]):
                raise ValueError("its sender has no name")
            if header["instance"] != self._instance:
                take(header, body)
        except (ValueError, KeyError, TypeError) as error:
            # One warning, for whoever sends one such message sends thousands.
            logger.log(logging.DEBUG if self._warned else logging.WARNING, "a control message is ignored: %s", error)
            self._warned = True

    def _asked(self, header: dict[str, Any], question: bytes) -> None:
        kind, request, asker = header["kind"], header["request"], header["instance"]
        if not (isinstance(kind, str) and isinstance(request, str)):
            raise ValueError("its kind or its request is no text")
        if self._answer is None or len(self._answering) >= MAX_ANSWERING:
            return
        task = asyncio.create_task(self._reply(self._answer, kind, question, request, asker), name="control answer")
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _reply(self, answer: Answerer, kind: str, question: bytes, request: str, asker: str) -> None:
        """Who asks is not told of a failure: it waits no longer than it would for an instance that hangs."""
        try:
            body = await answer(kind, question)
            if len(body) > MAX_ANSWER_BYTES:
                raise ValueError(f"an answer has at most {MAX_ANSWER_BYTES} bytes, not {len(body)}")
            header = {"instance": self._instance, "request": request}
            async with asyncio.timeout(self._patience_s):
                await self._carrier.send(f"{_CHANNEL}/{asker}", orjson.dumps(header) + b"\n" + body)
        except (CarrierAway, TimeoutError):
            pass  # nor would an answer arrive
        except UnknownQuestion as unknown:
            logger.debug("an instance of another version asks: %s", unknown)
        except Exception:
            logger.exception("a question of the kind %.80s could not be answered", kind)

    def _answered(self, header: dict[str, Any], answer: bytes) -> None:
        asked = self._asking.get(header["request"])
        if asked is not None:  # else it comes too late
            asked.take(Answer(header["instance"], answer))


class _Asked:
    """A question under way: the answers so far, one of each instance."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self._more = asyncio.Event()

    def take(self, answer: Answer) -> None:
        self.answers.setdefault(answer.instance, answer)
        self._more.set()

    async def heard_of(self, others: int, deadline: float) -> bool:
        """Wait until so many have answered; False when they have not at the deadline, or nobody knows how many."""
        try:
            async with asyncio.timeout_at(deadline):
                while len(self.answers) < others:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            return False
        return others >= 0
