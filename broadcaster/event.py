"""The event: one immutable fact, encoded once as a CloudEvents 1.0 JSON object."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, final

import orjson

from broadcaster.errors import FieldProblem, InvalidEvent, InvalidPosition

POSITION_PATTERN: Final = re.compile(r"([a-z0-9]{1,40})-(0|[1-9][0-9]{0,17})")
TYPE_PATTERN: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")
CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Those of C1 and the separators of lines and paragraphs as well: readers of lines go by them, too."""
MAX_TYPE_LENGTH: Final = 64
MAX_DATA_BYTES: Final = 64 * 1024
MAX_SUBJECT_LENGTH: Final = 256

TICKET_TYPES: Final = tuple(
    f"ticket.{verb}"
    for verb in (
        "created", "updated", "status_changed", "assigned", "commented", "claimed", "released", "lease_expired",
        "lease_renewed", "progress", "linked", "unlinked", "unblocked", "deleted", "restored",
    )
)  # fmt: skip
SYSTEM_TYPES: Final = ("reference.changed", "batch.finished")
RESERVED_PREFIXES: Final = (
    "ticket.", "reference.", "batch.", "taskhub.", "registry.", "connection.", "execution.",
)  # fmt: skip
# Frames of the stream's own: an event of such a type, sent under its name, could be taken for one of them.
CONTROL_NAMES: Final = frozenset(
    {"hello", "snapshot", "message", "batch_update", "ready", "reset", "heartbeat", "notice", "goodbye"}
)

STATE_FIELDS: Final = (
    "status", "phase", "assignee", "requestor", "account", "category", "channel", "priority", "label",
)  # fmt: skip
"""What a filter can ask of a ticket's state; each is an id, a word, None, or (label) a list of words."""

State = Mapping[str, Any]
"""A ticket's filterable state: state field → id or None; `label` → list of str."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a workspace's log: after the event `seq` of `epoch`. `seq` 0 is before the first event."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Read `<epoch>-<seq>`. Raises InvalidPosition."""
        found = POSITION_PATTERN.fullmatch(text)
        if found is None:
            raise InvalidPosition(text)
        return cls(found[1], int(found[2]))


@dataclass(frozen=True, slots=True)
class EventDraft:
    """An event before it has a place in the log. `data` is one JSON object, encoded."""

    type: str
    actor: str
    origin: str
    data: bytes
    subject: str | None = None
    ticket_version: int | None = None
    transient: bool = False
    request_id: str | None = None
    batch_id: str | None = None
    trace: str | None = None
    """`traceparent` (W3C Trace Context) of the request that it comes from."""

    def check_publishable(self) -> None:
        """Raise InvalidEvent unless a client may publish this: a type of its own, no control characters."""
        problems: list[FieldProblem] = []
        if not TYPE_PATTERN.fullmatch(self.type) or len(self.type) > MAX_TYPE_LENGTH:
            problems.append(
                FieldProblem("type", "must be dotted lower case, at most 64 characters, such as build.finished")
            )
        elif self.type.startswith(RESERVED_PREFIXES) or self.type in CONTROL_NAMES:
            problems.append(FieldProblem("type", f"{self.type.split('.')[0]}.* is reserved for TaskHub's own events"))
        if self.subject is not None:
            if not 0 < len(self.subject) <= MAX_SUBJECT_LENGTH:
                problems.append(FieldProblem("subject", f"must have 1 to {MAX_SUBJECT_LENGTH} characters"))
            elif CONTROL_CHARACTER.search(self.subject):
                problems.append(FieldProblem("subject", "must not contain control characters"))
        if len(self.data) > MAX_DATA_BYTES:
            problems.append(FieldProblem("data", f"must be at most {MAX_DATA_BYTES} bytes of JSON"))
        if problems:
            raise InvalidEvent(problems)

    def placed(self, workspace: str, epoch: str, seq: int, *, id: str, time: str) -> "Event":
        """The event that it is with its place in the log."""
        return Event(
            workspace=workspace,
            epoch=epoch,
            seq=seq,
            id=id,
            time=time,
            type=self.type,
            subject=self.subject,
            actor=self.actor,
            origin=self.origin,
            ticket_version=self.ticket_version,
            trace=self.trace,
            data=self.data,
        )


@final
class Event:
    """One immutable fact with its place in the log.

    `seq` is dense per workspace; a transient event has `seq` 0, a UUID as `id`, and is never stored.
    `id` is fixed at append; `epoch` is the log's current one, so `position` differs from `id` after a restore.
    Encodings, frames and ticket states are computed on first use and kept: the same object serves every subscriber.
    """

    __slots__ = (
        "_after", "_before", "_encoded", "_parsed", "actor", "data", "epoch", "frames", "id", "origin", "seq",
        "subject", "ticket_version", "time", "trace", "type", "workspace",
    )  # fmt: skip

    def __init__(
        self,
        *,
        workspace: str,
        epoch: str,
        seq: int,
        id: str,
        time: str,
        type: str,
        subject: str | None,
        actor: str,
        origin: str,
        ticket_version: int | None,
        data: bytes,
        trace: str | None = None,
        encoded: bytes | None = None,
    ) -> None:
        self.workspace = workspace
        self.epoch = epoch
        self.seq = seq
        self.id = id
        self.time = time
        self.type = type
        self.subject = subject
        self.actor = actor
        self.origin = origin
        self.ticket_version = ticket_version
        self.trace = trace
        self.data = data
        self.frames: dict[tuple[str, str], bytes] = {}
        self._encoded = encoded
        self._parsed: Any = None
        self._before: State | bool | None = False
        self._after: State | bool | None = False

    def __repr__(self) -> str:
        return f"<Event {self.id} {self.type} {self.subject}>"

    @property
    def transient(self) -> bool:
        return self.seq == 0

    @property
    def position(self) -> str:
        return f"{self.epoch}-{self.seq}"

    @property
    def encoded(self) -> bytes:
        """The CloudEvents JSON object, one line, without `match`."""
        if self._encoded is None:
            head: dict[str, Any] = {
                "specversion": "1.0",
                "id": self.id,
                "source": f"/taskhub/{self.workspace}",
                "type": self.type,
            }
            if self.subject is not None:
                head["subject"] = self.subject
            head["time"] = self.time
            head["workspace"] = self.workspace
            head["actor"] = self.actor
            head["origin"] = self.origin
            if self.ticket_version is not None:
                head["ticketversion"] = self.ticket_version
            if self.trace is not None:
                head["traceparent"] = self.trace
            self._encoded = orjson.dumps(head)[:-1] + b',"data":' + self.data + b"}"
        return self._encoded

    @classmethod
    def decode(cls, encoded: bytes, *, epoch: str, seq: int) -> "Event":
        """The inverse of `encoded`, for an event received from another instance."""
        document = orjson.loads(encoded)
        return cls(
            workspace=document["workspace"],
            epoch=epoch,
            seq=seq,
            id=document["id"],
            time=document["time"],
            type=document["type"],
            subject=document.get("subject"),
            actor=document["actor"],
            origin=document["origin"],
            ticket_version=document.get("ticketversion"),
            trace=document.get("traceparent"),
            data=orjson.dumps(document["data"]),
            encoded=encoded,
        )

    @property
    def parsed(self) -> Any:
        """`data` as Python values."""
        if self._parsed is None:
            self._parsed = orjson.loads(self.data)
        return self._parsed

    @property
    def changes(self) -> Mapping[str, Sequence[Any]]:
        """Field → [before, after]; empty for an event that is not about a ticket."""
        if not self.type.startswith("ticket."):
            return {}
        found: Mapping[str, Sequence[Any]] = self.parsed.get("changes") or {}
        return found

    @property
    def after(self) -> State | None:
        """The ticket's state after the event; None where there is no ticket or it was deleted."""
        if self._after is False:
            self._after = None if self.type == "ticket.deleted" else self._state()
        return self._after  # type: ignore[return-value]  # False is the not-yet-computed mark, replaced above

    @property
    def before(self) -> State | None:
        """The ticket's state before the event; None where there is no ticket or it was just created or restored."""
        if self._before is False:
            self._before = None
            if self.type not in ("ticket.created", "ticket.restored") and (state := self._state()) is not None:
                before = dict(state)
                for name, change in self.changes.items():
                    key = "label" if name == "labels" else name
                    if key in before:
                        before[key] = change[0]
                self._before = before
        return self._before  # type: ignore[return-value]  # as above

    def _state(self) -> State | None:
        if not self.type.startswith("ticket."):
            return None
        ticket = self.parsed.get("ticket")
        return None if ticket is None else state_of(ticket)


def wire_time(moment: datetime) -> str:
    """An aware time as events carry it: UTC with milliseconds, `2026-11-20T09:12:03.123Z`."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def state_of(ticket: Mapping[str, Any]) -> State:
    """The filterable state of a ticket as it stands in `data.ticket` and in snapshots (references are {id, name})."""
    state: dict[str, Any] = {}
    for name in STATE_FIELDS:
        value = ticket.get("labels", []) if name == "label" else ticket.get(name)
        state[name] = value["id"] if isinstance(value, dict) else value
    return state
