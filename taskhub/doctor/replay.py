"""One ticket by its events alone: what they say of it, and whether they agree with each other and with the row."""

from collections.abc import Iterator
from typing import Any

import orjson

from taskhub.tickets.fields import FIELDS
from taskhub.tickets.keys import key_of
from taskhub.tickets.record import TicketRecord
from taskhub.tickets.reference import References
from taskhub.tickets.views import compact

State = dict[str, Any]
"""The compact state of a ticket as JSON."""


class TicketReplay:
    """Follows the events about a ticket, from `ticket.created` on, in the order of the log."""

    def __init__(self) -> None:
        self.state: State | None = None
        """What the newest event carries."""
        self.version = 0
        self.claims = 0
        self.told: dict[str, Any] = {}
        """What `changes` last said of what is not in the state: field → value."""
        self.comments: dict[int, int] = {}
        """Seq of the event → hash of the comment that it carried."""

    def follow(self, seq: int, event_type: str, version: int | None, data: bytes | str) -> Iterator[str]:
        """Take over what an event says; what does not agree with the events before it."""
        body = orjson.loads(data)
        state, changes, known = body["ticket"], body.get("changes") or {}, self.state
        if known is None and event_type != "ticket.created":
            yield f"its first event, {seq}, is {event_type} and not ticket.created"
        # A comment alone raises no version.
        expected = self.version + (event_type != "ticket.commented")
        if version != expected:
            yield f"event {seq} ({event_type}) has version {version}, and should have {expected}"
        yield from self._changed(seq, state, changes)
        self.state, self.version = state, version or 0
        self.told |= {name: after for name, (_, after) in changes.items() if name not in state}
        self.claims += event_type == "ticket.claimed"
        if body.get("comment") is not None:
            self.comments[seq] = hash(body["comment"])

    def _changed(self, seq: int, state: State, changes: dict[str, list[Any]]) -> Iterator[str]:
        known = self.state
        if known is None:
            return
        for name, (before, after) in changes.items():
            if name in state and name in known:
                if (plain(known[name]), plain(state[name])) != (before, after):
                    yield f"event {seq} changes {name} in another way than the states before and after it say"
            # A relation that came with another ticket's creation is told by no event of this one.
            elif name in self.told and name != "relations" and self.told[name] != before:
                yield f"event {seq} says that {name} was another before than the events before it say"
        for name in state.keys() & known.keys() - changes.keys() - {"version", "updated_at"}:
            if plain(state[name]) != plain(known[name]):
                yield f"event {seq} carries another {name} than the event before it, and does not say so"

    def differences(self, record: TicketRecord, references: References, prefix: str) -> Iterator[str]:
        """Where the row is not what the events have made of the ticket."""
        if record.version != self.version:
            yield f"its row has version {record.version}, its newest event {self.version}"
        row = orjson.loads(orjson.dumps(compact(record, references, prefix)))
        for name, value in (self.state or {}).items():
            if name != "version" and plain(row.get(name)) != plain(value):
                yield f"its row has another {name} than its newest event"
        for field in FIELDS:
            if field.event in self.told:
                value = getattr(record, field.column)
                if field.name == "parent" and value is not None:
                    value = key_of(prefix, value)
                if value != self.told[field.event]:
                    yield f"its row has another {field.event} than the newest event that changed it"
        if (record.deleted_at is not None) != bool(self.told.get("deleted")):
            yield (
                "its row says that it is deleted, its events do not"
                if record.deleted_at
                else ("its events say that it is deleted, its row does not")
            )


def plain(value: Any) -> Any:
    """A value of a ticket's state as `changes` name it: of a reference its id, of a lease its holder."""
    if isinstance(value, dict):
        return value.get("id", value.get("holder", value))
    return value
