"""Reading the audit log of a workspace, the newest first."""

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Self, get_args

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import Connection, Row, Select, select

from taskhub.audit.record import Action, Entry, Outcome, first_id, record
from taskhub.auth.principal import Caller
from taskhub.numbers import WHOLE
from taskhub.storage.database import Database
from taskhub.storage.schema import audit
from taskhub.storage.times import Clock, utc_now
from taskhub.tickets.cursor import Cursor, CursorCodec
from taskhub.tickets.errors import InputProblem, InvalidInput
from taskhub.tickets.requests import require

ACTIONS: Final[tuple[str, ...]] = get_args(Action)
MAX_ENTRIES: Final = 200
_A: Final = audit.c
_AGO: Final = re.compile(r"([0-9]{1,6})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What was done, or refused. `credential`: the id of the key or session it was done with. `actor` is null where
    nobody could be told, and `details.count` says of refusals how often it happened since `details.since`."""

    id: str
    time: str
    actor: str | None
    credential: str | None
    address: str | None
    request_id: str | None
    action: Action
    target: str | None
    outcome: Outcome
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AuditPage:
    entries: list[AuditEntry]
    next_cursor: str | None


class AuditQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    since: Annotated[str, StringConstraints(max_length=40)] | None = Field(
        None, description="the oldest that is wanted: an RFC 3339 time, or how long ago, such as `15m`, `12h`, `7d`"
    )
    action: list[Action] = Field(default_factory=list, description="what was done")
    actor: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        None, description="who did it, such as `user:alice`"
    )
    limit: Annotated[int, WHOLE] = Field(50, ge=1, le=MAX_ENTRIES)
    cursor: Annotated[str, StringConstraints(max_length=1000)] | None = None

    def of_the_last(self, time: timedelta) -> Self:
        """The same, of entries that are not older."""
        return self.model_copy(update={"since": f"{int(time.total_seconds())}s"})


class AuditLog:
    """The audit log of the caller's workspace, for callers with the scope `admin`."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def page(self, caller: Caller, query: AuditQuery) -> AuditPage:
        """One page. Raises InvalidInput (for a foreign cursor too), Forbidden and StorageBusy."""
        require(caller, "admin")
        cursors = CursorCodec((await self._database.deployment()).secret)
        asked = orjson.dumps(["audit", caller.principal.workspace, query.since, sorted(query.action), query.actor])
        statement = self._selected(caller, query).order_by(_A.id.desc()).limit(query.limit + 1)
        if query.cursor is not None:
            statement = statement.where(_A.id < str(cursors.decode(query.cursor, asked).value))
        rows = await self._rows(statement)
        entries = [_entry(row) for row in rows[: query.limit]]
        more = len(rows) > query.limit
        return AuditPage(entries, cursors.encode(Cursor(entries[-1].id, 0), asked) if more else None)

    async def walk(self, caller: Caller, query: AuditQuery) -> AsyncIterator[list[AuditEntry]]:
        """All entries that are asked for, the oldest first and some at a time. Raises what `page` raises."""
        require(caller, "admin")
        statement = self._selected(caller, query).order_by(_A.id).limit(MAX_ENTRIES)
        last = ""
        while True:
            rows = await self._rows(statement.where(_A.id > last))
            if rows:
                yield [_entry(row) for row in rows]
            if len(rows) < MAX_ENTRIES:
                return
            last = rows[-1].id

    async def record(self, entry: Entry) -> None:
        """Add an entry of what has no transaction of its own. Raises StorageBusy."""

        def work(connection: Connection) -> None:
            record(connection, entry, self._clock())

        await self._database.write(work)

    def _selected(self, caller: Caller, query: AuditQuery) -> Select[Any]:
        statement = select(audit).where(_A.workspace_id == caller.principal.workspace)
        if query.since is not None:
            statement = statement.where(_A.id >= first_id(_moment(query.since, self._clock())))
        if query.action:
            statement = statement.where(_A.action.in_(query.action))
        if query.actor is not None:
            statement = statement.where(_A.actor == query.actor)
        return statement

    async def _rows(self, statement: Select[Any]) -> Sequence[Row[Any]]:
        return await self._database.read(lambda connection: connection.execute(statement).all())


def _moment(text: str, now: datetime) -> datetime:
    """Raises InvalidInput."""
    try:
        if (ago := _AGO.fullmatch(text.strip())) is not None:
            return now - timedelta(seconds=int(ago[1]) * _SECONDS[ago[2]])
        moment = datetime.fromisoformat(text.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        reason = "must be a time such as 2026-11-20T12:00:00Z, or how long ago: 15m, 12h or 7d"
        raise InvalidInput([InputProblem("/since", reason)]) from None


def _entry(row: Row[Any]) -> AuditEntry:
    return AuditEntry(
        id=row.id,
        time=row.time,
        actor=row.actor,
        credential=row.credential,
        address=row.address,
        request_id=row.request_id,
        action=row.action,
        target=row.target,
        outcome=row.outcome,
        details=orjson.loads(row.details),
    )
