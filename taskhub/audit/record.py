"""Recording what was done or refused. Entries are added and, when they are old, deleted; none is ever changed."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Self

import orjson
from sqlalchemy import Connection, insert

from taskhub.auth.principal import Caller
from taskhub.redaction import clean, redacted
from taskhub.storage.schema import audit
from taskhub.storage.seeds import DEFAULT_WORKSPACE
from taskhub.storage.times import to_text, utc_now
from taskhub.storage.transaction import Transaction

Action = Literal[
    "authentication.failed",
    "access.denied",
    "session.opened",
    "session.ended",
    "sign_in_link.created",
    "password.changed",
    "identity.linked",
    "identity.removed",
    "key.created",
    "key.rotated",
    "key.changed",
    "key.revoked",
    "stream_token.created",
    "user.added",
    "user.changed",
    "user.removed",
    "tickets.exported",
    "tickets.imported",
    "stream.ended",
    "application.connected",
    "application.disconnected",
    "client.added",
    "client.removed",
    "workspace.created",
    "workspace.renamed",
    "database.backed_up",
    "database.restored",
]
Outcome = Literal["success", "failure", "denied"]

DEPLOYMENT: Final = DEFAULT_WORKSPACE
"""Where stands what belongs to no workspace: whoever operates this one operates the deployment."""
_MAX_TEXT: Final = 200
_BEGIN: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INSERT: Final = insert(audit)


@dataclass(frozen=True, slots=True)
class Entry:
    """What is recorded. `target`: the id of what it was done to. `details`: values for JSON, never a secret.

    What looks like a secret is taken out all the same."""

    action: Action
    workspace: str = DEPLOYMENT
    actor: str | None = None
    target: str | None = None
    outcome: Outcome = "success"
    credential: str | None = None
    address: str | None = None
    request_id: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def by(
        cls,
        caller: Caller,
        action: Action,
        target: str | None = None,
        *,
        outcome: Outcome = "success",
        **details: Any,
    ) -> Self:
        """What a caller did. Where it goes by a name that it gave itself, `owner` says whose credential it has."""
        principal = caller.principal
        return cls(
            action,
            principal.workspace,
            principal.actor,
            target,
            outcome,
            principal.credential,
            caller.address,
            caller.request_id,
            details if principal.owner is None else {**details, "owner": principal.owner},
        )


def record(connection: Connection | Transaction, entry: Entry, now: datetime | None = None) -> None:
    """Add an entry in the transaction of what it tells, so that there is neither without the other."""
    now = utc_now() if now is None else now
    row = {
        "workspace_id": entry.workspace,
        "id": new_id(now),
        "time": to_text(now),
        "actor": entry.actor,
        "credential": entry.credential,
        "address": entry.address,
        "request_id": entry.request_id,
        "action": entry.action,
        "target": None if entry.target is None else redacted(entry.target)[:_MAX_TEXT],
        "outcome": entry.outcome,
        "details": orjson.dumps(clean("", entry.details), default=str).decode(),
    }
    connection.execute(_INSERT, row)


def new_id(now: datetime) -> str:
    """A new id. Ids sort as their times do, and tell nothing of how many others there are."""
    return f"{first_id(now)[:-8]}{secrets.token_hex(4)}"


def first_id(time: datetime) -> str:
    """What ids of entries of this time and later ones are not less than."""
    # To the microsecond: what one transaction does after another comes after it here.
    return f"aud_{max(0, (time - _BEGIN) // timedelta(microseconds=1)):014x}{'0' * 8}"
