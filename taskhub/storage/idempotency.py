"""Idempotency records: a request that is repeated under the same key has one effect and gets the same answer."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, bindparam, delete, insert, select, tuple_

from taskhub.storage.schema import idempotency_keys as keys
from taskhub.storage.times import to_text
from taskhub.storage.transaction import Transaction
from taskhub.tickets.errors import IdempotencyMismatch

LIFETIME: Final = timedelta(hours=24)
SWEEP_AT_MOST: Final = 500
"""Records that one unit deletes: on SQLite everybody else waits for it."""

_IS_IT: Final = (
    keys.c.workspace_id == bindparam("w"),
    keys.c.principal == bindparam("p"),
    keys.c.operation == bindparam("o"),
    keys.c.key == bindparam("k"),
)
_FIND: Final = select(keys.c.fingerprint, keys.c.answer, keys.c.created_at).where(*_IS_IT)
_FORGET: Final = delete(keys).where(*_IS_IT)
_STORE: Final = insert(keys)


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """A request that may be repeated; unique per workspace, principal, operation and key."""

    principal: str
    operation: str
    key: str
    fingerprint: str


def fingerprint(*parts: bytes) -> str:
    """What tells one request from another under the same key: SHA-256 over its parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def find(transaction: Transaction, request: IdempotentRequest, now: datetime) -> bytes | None:
    """The stored answer of the same request made before. Raises IdempotencyMismatch when the key was used for another.

    Nobody else can be using the key at this moment: units on a workspace come one after the other.
    """
    identity = _identity(transaction.workspace, request)
    record = transaction.connection.execute(_FIND, identity).first()
    if record is None:
        return None
    if record.created_at <= to_text(now - LIFETIME):
        transaction.execute(_FORGET, identity)
        return None
    if record.fingerprint != request.fingerprint:
        raise IdempotencyMismatch
    return bytes(record.answer, "utf-8")


def store(transaction: Transaction, request: IdempotentRequest, answer: bytes, now: datetime) -> None:
    """Store the answer, in the transaction that has the effect."""
    row = {
        "workspace_id": transaction.workspace,
        "principal": request.principal,
        "operation": request.operation,
        "key": request.key,
        "fingerprint": request.fingerprint,
        "answer": answer.decode(),
        "created_at": to_text(now),
    }
    transaction.execute(_STORE, row)


def sweep(connection: Connection, now: datetime) -> int:
    """Delete some of the expired records, oldest first, passing over those that are in somebody's hand; how many."""
    key = (keys.c.workspace_id, keys.c.principal, keys.c.operation, keys.c.key)
    expired = (
        select(*key)
        .where(keys.c.created_at <= to_text(now - LIFETIME))
        .order_by(keys.c.created_at)
        .limit(SWEEP_AT_MOST)
        .with_for_update(skip_locked=True)
    )
    return connection.execute(delete(keys).where(tuple_(*key).in_(expired))).rowcount


def _identity(workspace: str, request: IdempotentRequest) -> dict[str, str]:
    return {
        "w": workspace,
        "p": request.principal,
        "o": request.operation,
        "k": request.key,
    }
