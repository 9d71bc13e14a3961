"""Asking a person before a tool does what cannot simply be done again: in both eras of the protocol.

A tool says what it would do as a `Question`, which pins the versions that the person is told of. Who asks is a
`Person`: since 2026 the call answers that input is required, and is repeated with the answer; before, the question goes
to the client while the call waits. What was answered counts for those versions alone: who changes a ticket meanwhile
lets the person be asked anew.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

import orjson
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp.shared.message import ServerMessageMetadata
from mcp_types import (
    CallToolRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from taskhub.auth.principal import Caller
from taskhub.fitting import clip
from taskhub.tickets.errors import TicketError

LIFETIME_S: Final = 600.0
"""How long a person has for the answer."""
NO_VERSION: Final = 999_999_999
"""A version that no ticket has: a write that expects it changes nothing, but says all that stands in its way, and
answers what it was answered before under the same idempotency key."""
_REQUEST: Final = "confirm"
_CHANGED: Final = "This has changed since you were asked. "
# Nothing to fill in: to accept is to say yes.
_NO_FIELDS: Final[dict[str, Any]] = {"type": "object", "properties": {}}

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


@dataclass(frozen=True, slots=True)
class Question:
    """`text`: what would happen, for a person. `about`: the versions of the tickets in it, by key. `pinned`: the
    arguments with which the tool does that and nothing else."""

    text: str
    about: Mapping[str, int]
    pinned: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Confirmation(Generic[Asked, Answered]):
    """Which calls of a tool a person has to confirm, and what that person is asked; or what the tool answers where
    nothing is left to ask. The tool has an argument `confirm`, by which a client that cannot ask says that somebody
    did."""

    question: Callable[[Caller, Asked], Awaitable[Question | Answered]]
    needed: Callable[[Asked], bool] = lambda arguments: True


class ConfirmationRequired(TicketError):
    """The client cannot ask. `str()` is the question."""

    code = "confirmation_required"

    def __init__(self, question: str) -> None:
        super().__init__(question)
        self.hint = "ask a person this; after a yes call again with confirm: true"


class ConfirmationDeclined(TicketError):
    code = "confirmation_declined"

    def __init__(self) -> None:
        super().__init__("the person who was asked said no, so nothing was changed")
        self.hint = "do not ask again; go on without it, or ask in a comment what to do instead"


class ConfirmationCancelled(TicketError):
    code = "confirmation_cancelled"
    retryable = True

    def __init__(self) -> None:
        super().__init__("the question was closed without an answer, so nothing was changed")
        self.hint = "the same call asks again, once somebody is there to answer"


class InputRequired(Exception):
    """A person has to be asked first, and the call repeated with the answer: `result` says so to the client."""

    def __init__(self, result: InputRequiredResult) -> None:
        super().__init__("input is required")
        self.result = result


class Person(Protocol):
    """Whoever sits at the client."""

    async def confirm(self, find: Callable[[], Awaitable[Question | Answered]]) -> Question | Answered:
        """The question to which the person said yes, or what `find` found instead of one. It is asked again for what
        there is to ask now.

        Raises ConfirmationRequired, ConfirmationDeclined, ConfirmationCancelled and InputRequired.
        """


class Nobody:
    """The client cannot ask anybody."""

    async def confirm(self, find: Callable[[], Awaitable[Question | Answered]]) -> Question | Answered:
        found = await find()
        if isinstance(found, Question):
            raise ConfirmationRequired(found.text)
        return found


class AskedByRepeating:
    """Since 2026: the answer comes with the call, and beside it the state that its question went out with. The server
    has opened that state already, so it is one of this very call."""

    def __init__(self, params: CallToolRequestParams) -> None:
        answer = (params.input_responses or {}).get(_REQUEST)
        self._answer = answer if isinstance(answer, ElicitResult) else None
        self._about: dict[str, int] | None = (
            None if params.request_state is None else orjson.loads(params.request_state)
        )

    async def confirm(self, find: Callable[[], Awaitable[Question | Answered]]) -> Question | Answered:
        if self._about is not None and self._answer is not None:
            check(self._answer)
        found = await find()
        if not isinstance(found, Question):
            return found
        if self._about is None or self._answer is None:
            raise InputRequired(_to_be_asked(found))
        if self._about != found.about:
            raise InputRequired(_to_be_asked(found, anew=True))
        return found


class AskedOnTheSession:
    """Before 2026: the question is a request to the client, on the stream of the call that waits for it."""

    def __init__(self, context: ServerRequestContext[Any, Any]) -> None:
        self._context = context

    async def confirm(self, find: Callable[[], Awaitable[Question | Answered]]) -> Question | Answered:
        found: Question | Answered = await find()
        about: Mapping[str, int] | None = None
        while isinstance(found, Question) and found.about != about:
            await self._ask(found, anew=about is not None)
            about = found.about
            found = await find()
        return found

    async def _ask(self, question: Question, *, anew: bool) -> None:
        metadata = ServerMessageMetadata(related_request_id=self._context.request_id)
        try:
            answer = await self._context.session.send_request(
                _form(question, anew=anew), ElicitResult, LIFETIME_S, metadata
            )
        except NoBackChannelError:
            raise ConfirmationRequired(question.text) from None
        except (MCPError, ValueError):  # the client cannot ask after all, nobody answered in time, or it was no answer
            raise ConfirmationCancelled from None
        check(answer)


def person_of(context: ServerRequestContext[Any, Any], params: CallToolRequestParams) -> Person | None:
    """Whom a tool may ask; None where the client has not said that it can show a form to a person."""
    capabilities = context.session.client_capabilities
    elicitation = None if capabilities is None else capabilities.elicitation
    # A capability without modes is that of forms, which were there first.
    if elicitation is None or (elicitation.form is None and elicitation.url is not None):
        return None
    if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
        return AskedByRepeating(params)
    return AskedOnTheSession(context) if context.session.can_send_request else None


def one_line(text: str, length: int = 200) -> str:
    """What somebody wrote, as a part of a question: it cannot look like another line of it."""
    return clip(" ".join(text.split()), length)


def check(answer: ElicitResult) -> None:
    """Return for a yes. Raises ConfirmationDeclined and ConfirmationCancelled."""
    if answer.action == "cancel":
        raise ConfirmationCancelled
    # The form has no such field, but a client that sends it means what it says.
    if answer.action == "decline" or (answer.content or {}).get(_REQUEST) is False:
        raise ConfirmationDeclined


def _form(question: Question, *, anew: bool) -> ElicitRequest:
    message = f"{_CHANGED}{question.text}" if anew else question.text
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=_NO_FIELDS))


def _to_be_asked(question: Question, *, anew: bool = False) -> InputRequiredResult:
    return InputRequiredResult(
        input_requests={_REQUEST: _form(question, anew=anew)},
        request_state=orjson.dumps(dict(question.about)).decode(),
    )
