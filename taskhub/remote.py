"""The ticket service of a TaskHub elsewhere, over its REST API: `--api-base-url`."""

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack
from urllib.parse import quote, urlsplit, urlunsplit

import aiohttp
import orjson
from pydantic import BaseModel, TypeAdapter

from broadcaster.filters import FILTER_NAMES
from taskhub import tracing
from taskhub.auth.principal import Caller
from taskhub.auth.providers import ACTOR_HEADER
from taskhub.headers import IDEMPOTENCY_HEADER, LEASE_HEADER
from taskhub.remote_errors import RemoteUnavailable, error_of, parsed
from taskhub.storage.names import normalise
from taskhub.tickets.api import Conditions, Held, Repeatable
from taskhub.tickets.errors import (
    BatchNotFound,
    InputProblem,
    InvalidInput,
    TicketNotFound,
)
from taskhub.tickets.inputs import (
    BoardQuery,
    BulkUpdate,
    ClaimNext,
    EventQuery,
    NewClaim,
    NewComment,
    NewRelation,
    NewTicket,
    ProgressReport,
    Release,
    TicketChange,
    TicketQuery,
    UndoBatch,
)
from taskhub.tickets.model import (
    BatchResult,
    Board,
    CategoryDetail,
    Claimed,
    EventPage,
    Include,
    Reference,
    RelationName,
    Reported,
    Status,
    TicketDetail,
    TicketPage,
    User,
    Written,
)
from taskhub.tickets.reference import MAX_ALLOWED

TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 5.0
CHECK_TIMEOUT_S: Final = 2.0
MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
# Before the second and the third attempt. After that the caller decides: it knows how long it can wait.
RETRY_DELAYS_S: Final = (0.2, 1.0)
MAX_RETRY_AFTER_S: Final = 5.0
# Filters of a list that name reference data.
_NAMED: Final = ("person_in_charge", "account", "status", "category")
_KEY: Final = re.compile(r"[A-Za-z0-9-]{1,40}")

_Answer = TypeVar("_Answer")
_Written = TypeVar("_Written", bound=Written | BatchResult)
_PAGE: Final = TypeAdapter(TicketPage)
_DETAIL: Final = TypeAdapter(TicketDetail)
_BOARD: Final = TypeAdapter(Board)
_EVENTS: Final = TypeAdapter(EventPage)
_WRITTEN: Final = TypeAdapter(Written)
_BATCH_RESULT: Final = TypeAdapter(BatchResult)
_CLAIMED: Final = TypeAdapter(Claimed)
_REPORTED: Final = TypeAdapter(Reported)
_USERS: Final = TypeAdapter(list[User])
_REFERENCES: Final = TypeAdapter(list[Reference])
_DETAILS: Final = TypeAdapter(list[CategoryDetail])
_STATUSES: Final = TypeAdapter(list[Status])


class RemoteTickets:
    """Implements taskhub.tickets.api.Tickets over HTTP. You must `close()` it.

    Reads, and writes (each carries an idempotency key, a fresh one where the caller gave none), are tried up to three
    times when the server cannot be reached or answers 502, 503 or 504. Each call carries its caller's actor, which
    counts where the server asks for no credential; with one, where it is an agent's or a service's.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._base = base_url.rstrip("/")
        self._shown = _without_credentials(self._base)
        self._headers = {"Accept": "application/json"} | ({"X-API-Key": api_key} if api_key else {})
        self._sleep = sleep
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def list_tickets(self, caller: Caller, query: TicketQuery) -> TicketPage:
        return await self._read(caller, "/tickets", _PAGE, await self._parameters(caller, query))

    async def get_board(self, caller: Caller, query: BoardQuery) -> Board:
        return await self._read(caller, "/board", _BOARD, await self._parameters(caller, query))

    async def get_events(self, caller: Caller, query: EventQuery) -> EventPage:
        if wrong := sorted(set(query.filter) - set(FILTER_NAMES)):
            raise InvalidInput([InputProblem(f"/filter/{wrong[0]}", "is not a filter", FILTER_NAMES)])
        parameters = [("after", query.after), ("limit", str(query.limit)), ("wait", f"{query.wait_seconds:g}")]
        answer = await self._call(
            caller, "GET", "/events", parameters=[*parameters, *query.filter.items()], wait_s=query.wait_seconds
        )
        return self._parsed(_EVENTS, answer)

    async def get_ticket(
        self,
        caller: Caller,
        key: str,
        *,
        include: Collection[Include] = (),
        history_limit: int = 20,
        as_of: str | None = None,
    ) -> TicketDetail:
        parameters = [("include", ",".join(include))] if include else []
        parameters += [] if as_of is None else [("as_of", as_of)]
        return await self._read(caller, _ticket(key), _DETAIL, [*parameters, ("history_limit", str(history_limit))])

    async def create_ticket(self, caller: Caller, new: NewTicket, **conditions: Unpack[Repeatable]) -> Written:
        return await self._write(caller, "POST", "/tickets", new, _WRITTEN, **conditions)

    async def update_ticket(
        self, caller: Caller, key: str, change: TicketChange, **conditions: Unpack[Conditions]
    ) -> Written:
        return await self._write(caller, "PATCH", _ticket(key), change, _WRITTEN, **conditions)

    async def add_comment(self, caller: Caller, key: str, new: NewComment, **conditions: Unpack[Held]) -> Written:
        return await self._write(caller, "POST", f"{_ticket(key)}/comments", new, _WRITTEN, **conditions)

    async def claim_ticket(self, caller: Caller, key: str, new: NewClaim, **conditions: Unpack[Repeatable]) -> Claimed:
        return await self._write(caller, "PUT", f"{_ticket(key)}/lease", new, _CLAIMED, **conditions)

    async def claim_next(self, caller: Caller, asked: ClaimNext, **conditions: Unpack[Repeatable]) -> Claimed:
        return await self._write(caller, "POST", "/tickets/claim-next", asked, _CLAIMED, **conditions)

    async def release_ticket(self, caller: Caller, key: str, asked: Release, **conditions: Unpack[Held]) -> Written:
        return await self._write(caller, "DELETE", f"{_ticket(key)}/lease", asked, _WRITTEN, **conditions)

    async def report_progress(
        self, caller: Caller, key: str, asked: ProgressReport, **conditions: Unpack[Held]
    ) -> Reported:
        return await self._write(caller, "POST", f"{_ticket(key)}/progress", asked, _REPORTED, **conditions)

    async def link_tickets(
        self, caller: Caller, key: str, relation: RelationName, other: str, **conditions: Unpack[Held]
    ) -> Written:
        path, body = f"{_ticket(key)}/relations", NewRelation(relation=relation, other=other)
        return await self._write(caller, "POST", path, body, _WRITTEN, **conditions)

    async def unlink_tickets(
        self, caller: Caller, key: str, relation: RelationName, other: str, **conditions: Unpack[Held]
    ) -> Written:
        path = f"{_ticket(key)}/relations/{relation}/{_segment(other)}"
        return await self._write(caller, "DELETE", path, None, _WRITTEN, **conditions)

    async def delete_ticket(self, caller: Caller, key: str, **conditions: Unpack[Conditions]) -> Written:
        return await self._write(caller, "DELETE", _ticket(key), None, _WRITTEN, **conditions)

    async def restore_ticket(
        self, caller: Caller, key: str, *, expected_version: int | None = None, **conditions: Unpack[Repeatable]
    ) -> Written:
        path = f"{_ticket(key)}/restore"
        return await self._write(caller, "POST", path, None, _WRITTEN, expected_version=expected_version, **conditions)

    async def update_tickets(self, caller: Caller, asked: BulkUpdate, **conditions: Unpack[Repeatable]) -> BatchResult:
        return await self._write(caller, "POST", "/tickets/bulk", asked, _BATCH_RESULT, **conditions)

    async def undo_batch(
        self, caller: Caller, batch_id: str, asked: UndoBatch, **conditions: Unpack[Repeatable]
    ) -> BatchResult:
        path = f"/batches/{_batch_segment(batch_id)}/undo"
        return await self._write(caller, "POST", path, asked, _BATCH_RESULT, **conditions)

    async def users(self, caller: Caller, *, role: str | None = None) -> list[User]:
        return await self._items(caller, "/users", _USERS, [("role", role)] if role else [])

    async def accounts(self, caller: Caller) -> list[Reference]:
        return await self._items(caller, "/accounts", _REFERENCES)

    async def categories(self, caller: Caller) -> list[Reference]:
        return await self._items(caller, "/categories", _REFERENCES)

    async def category_details(self, caller: Caller, *, category: str | None = None) -> list[CategoryDetail]:
        return await self._items(caller, "/category-details", _DETAILS, [("category", category)] if category else [])

    async def statuses(self, caller: Caller) -> list[Status]:
        return await self._items(caller, "/statuses", _STATUSES)

    async def request_channels(self, caller: Caller) -> list[Reference]:
        return await self._items(caller, "/request-channels", _REFERENCES)

    async def response_categories(self, caller: Caller) -> list[Reference]:
        return await self._items(caller, "/response-categories", _REFERENCES)

    async def state(self) -> str:
        """`ok`, or in a few words why calls would fail now. Asks the server once, for `CHECK_TIMEOUT_S` at most."""
        timeout = aiohttp.ClientTimeout(total=CHECK_TIMEOUT_S)
        # What needs the database and the credential, and is small.
        url = f"{self._base}/api/v1/statuses"
        try:
            async with self._client().get(
                url, headers=self._headers, timeout=timeout, allow_redirects=False
            ) as response:
                answer, status = await _json_of(response), response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"does not answer ({_reason(error)})"
        if status == 200 and isinstance(answer, dict) and "items" in answer:
            return "ok"
        if status in (401, 403):
            return "does not accept the API key that this process was started with"
        return f"cannot answer now (HTTP status {status})" if status >= 500 else "is no TaskHub API"

    async def _parameters(self, caller: Caller, query: BaseModel) -> list[tuple[str, str]]:
        parameters: list[tuple[str, str]] = []
        for name, value in query.model_dump(exclude_unset=True, exclude_none=True).items():
            for item in value if isinstance(value, list) else [value]:
                splits = name in _NAMED and "," in item
                parameters.append((name, await self._id_of(caller, name, item) if splits else _text(item)))
        return parameters

    async def _id_of(self, caller: Caller, name: str, spelled: str) -> str:
        """The id of what a filter names. The API splits lists at commas, and only names have them, not ids."""
        rows: Sequence[User | Reference | Status]
        match name:
            case "person_in_charge":
                rows = await self.users(caller)
            case "account":
                rows = await self.accounts(caller)
            case "status":
                rows = await self.statuses(caller)
            case _:
                rows = await self.categories(caller)
        found = [row.id for row in rows if normalise(row.name) == normalise(spelled)]
        if len(found) == 1:
            return found[0]
        reason = f"{spelled[:80]!r} means several; use an id" if found else f"there is no {spelled[:80]!r}"
        raise InvalidInput([InputProblem(f"/{name}", reason, tuple(found or [row.name for row in rows])[:MAX_ALLOWED])])

    async def _read(
        self, caller: Caller, path: str, kind: TypeAdapter[_Answer], parameters: Collection[tuple[str, str]] = ()
    ) -> _Answer:
        return self._parsed(kind, await self._call(caller, "GET", path, parameters=parameters))

    async def _items(
        self, caller: Caller, path: str, kind: TypeAdapter[_Answer], parameters: Collection[tuple[str, str]] = ()
    ) -> _Answer:
        answer = await self._call(caller, "GET", path, parameters=parameters)
        return self._parsed(kind, answer.get("items") if isinstance(answer, dict) else None)

    async def _write(
        self,
        caller: Caller,
        method: str,
        path: str,
        body: BaseModel | None,
        kind: TypeAdapter[_Written],
        **conditions: Unpack[Conditions],
    ) -> _Written:
        key = conditions.get("idempotency_key")
        sent = {IDEMPOTENCY_HEADER: key or f"auto-{uuid.uuid4().hex}"}
        if (version := conditions.get("expected_version")) is not None:
            sent["If-Match"] = f'"{version}"'
        if (token := conditions.get("lease_token")) is not None:
            sent[LEASE_HEADER] = str(token)
        content = None
        if body is not None:
            content = orjson.dumps(body.model_dump(mode="json", exclude_unset=True))
            sent["Content-Type"] = "application/json"
        if method == "DELETE":  # which answers nothing otherwise
            sent["Prefer"] = "return=representation"
        written = self._parsed(kind, await self._call(caller, method, path, body=content, headers=sent))
        # Under a key of our own a replay is only our second attempt meeting the first: to the caller it is one call.
        return written if key else replace(written, replayed=False)

    async def _call(
        self,
        caller: Caller,
        method: str,
        path: str,
        *,
        parameters: Collection[tuple[str, str]] = (),
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0,
    ) -> Any:
        """The answer's JSON, for which the server may wait `wait_s`. Raises what the local service would."""
        sent = {**self._headers, **(headers or {}), ACTOR_HEADER: caller.principal.actor}
        if caller.request_id is not None:
            sent["X-Request-ID"] = caller.request_id
        if (trace := tracing.CURRENT.get()) is not None:
            sent |= trace.headers
        url = f"{self._base}/api/v1{path}"
        for delay in (*RETRY_DELAYS_S, None):
            try:
                async with self._client().request(
                    method,
                    url,
                    params=list(parameters),
                    data=body,
                    headers=sent,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=TIMEOUT_S + wait_s, connect=CONNECT_TIMEOUT_S),
                ) as response:
                    answer = await _json_of(response)
                    status, wait = response.status, response.headers.get("Retry-After", "")
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                problem = RemoteUnavailable(self._shown, f"does not answer ({_reason(error)})")
                wait = ""
            else:
                if status < 300 and answer is not None:
                    return answer
                if status not in (502, 503, 504):
                    raise error_of(self._shown, status, answer)
                problem = RemoteUnavailable(self._shown, f"cannot answer now ({_detail(answer) or status})")
            if delay is None:
                raise problem
            await self._sleep(min(max(delay, float(wait) if wait.isdecimal() else 0.0), MAX_RETRY_AFTER_S))
        raise AssertionError("unreachable")

    def _parsed(self, kind: TypeAdapter[_Answer], answer: Any) -> _Answer:
        return parsed(kind, answer, self._shown)

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return self._session


async def _json_of(response: aiohttp.ClientResponse) -> Any:
    """The body as JSON; None where it is none, as from a proxy or another program at that address."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            return None
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _detail(answer: Any) -> str | None:
    return str(answer["detail"]) if isinstance(answer, dict) and answer.get("detail") else None


def _reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or "no connection"
    return "timeout" if isinstance(error, TimeoutError) else type(error).__name__


def _segment(key: str) -> str:
    """A ticket's key as a part of a path. What cannot be a key is not sent: it could name another resource."""
    if not _KEY.fullmatch(key):
        raise TicketNotFound(key)
    return quote(key, safe="")


def _ticket(key: str) -> str:
    return f"/tickets/{_segment(key)}"


def _batch_segment(batch_id: str) -> str:
    if not _KEY.fullmatch(batch_id):
        raise BatchNotFound(batch_id)
    return batch_id


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, date | datetime) else str(value)


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
