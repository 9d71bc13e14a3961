"""Asking all instances at once, as a protocol, and the twin for a single instance.

A small path beside the relay, for operators: what do you do, do you have this stream, end it. Answers are bounded in
size and time, and when somebody's is missing the whole is marked partial. Events never travel here.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from broadcaster.errors import BroadcasterError

MAX_QUESTION_BYTES: Final = 16 * 1024
"""A question names things; whoever answers looks them up."""
MAX_ANSWER_BYTES: Final = 1024 * 1024

Answerer = Callable[[str, bytes], Awaitable[bytes]]
"""(kind, question) → what this instance answers. Raises UnknownQuestion for a kind it does not know."""


class UnknownQuestion(BroadcasterError):
    """Nobody answers questions of this kind here; an instance of another version may."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"there are no questions of the kind {kind[:80]!r}")
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Answer:
    instance: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Answers:
    """What was answered in time, by the asking instance first. `partial`: there are others, or there may be."""

    given: Sequence[Answer]
    partial: bool


class Control(Protocol):
    """Questions to all instances, and their answers."""

    def start(self, answer: Answerer) -> None:
        """Answer with this from now on. Call it before the relay starts."""

    async def ask(self, kind: str, question: bytes) -> Answers:
        """Ask every instance, this one included. Raises what this one's answerer raises, and ValueError when the
        question is longer than MAX_QUESTION_BYTES; what befalls the others makes the answers partial."""

    async def stop(self) -> None:
        """Answer nobody any more. Call it before the relay stops."""


class LocalControl:
    """The control path of an instance that is alone: it asks itself."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._answer: Answerer | None = None

    def start(self, answer: Answerer) -> None:
        self._answer = answer

    async def ask(self, kind: str, question: bytes) -> Answers:
        check_question(question)
        if self._answer is None:
            raise RuntimeError("the control path was not started")
        return Answers([Answer(self._instance, await self._answer(kind, question))], partial=False)

    async def stop(self) -> None:
        self._answer = None


def check_question(question: bytes) -> None:
    """Raise ValueError when the question is too long."""
    if len(question) > MAX_QUESTION_BYTES:
        raise ValueError(f"a question has at most {MAX_QUESTION_BYTES} bytes, not {len(question)}")
