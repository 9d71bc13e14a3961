"""Idempotency records: a request that is repeated under the same key has one effect and gets the same answer."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, delete, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from taskhub.storage.schema import idempotency_keys as keys
from taskhub.storage.times import to_text
from taskhub.tickets.errors import IdempotencyMismatch

LIFETIME: Final = timedelta(hours=24)
SWEEP_AT_MOST: Final = 500
"""Records that one unit deletes: on SQLite everybody else waits for it."""


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


async def claim(connection: AsyncConnection, workspace: str, request: IdempotentRequest, now: datetime) -> bytes | None:
    """Insert the record and return None, or return the stored answer of the same request made before.

    While another transaction has the same key in hand this waits for its end (on PostgreSQL in the insert, on SQLite
    in BEGIN). Raises IdempotencyMismatch when the key was used for another request.
    """
    values = {
        "workspace_id": workspace,
        "principal": request.principal,
        "operation": request.operation,
        "key": request.key,
        "fingerprint": request.fingerprint,
        "answer": None,
        "created_at": to_text(now),
    }
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    inserted = await connection.execute(dialect.insert(keys).on_conflict_do_nothing(), values)
    if inserted.rowcount == 1:
        return None
    record = (
        await connection.execute(
            select(keys.c.fingerprint, keys.c.answer, keys.c.created_at)
            .where(*_is(workspace, request))
            .with_for_update()
        )
    ).first()
    if record is None or record.created_at <= to_text(now - LIFETIME):
        # Expired, or swept away between the two statements: the key is free again.
        await connection.execute(delete(keys).where(*_is(workspace, request)))
        return await claim(connection, workspace, request, now)
    if record.fingerprint != request.fingerprint:
        raise IdempotencyMismatch
    return bytes(record.answer, "utf-8")


async def complete(connection: AsyncConnection, workspace: str, request: IdempotentRequest, answer: bytes) -> None:
    """Store the answer, in the transaction that has the effect."""
    await connection.execute(update(keys).where(*_is(workspace, request)).values(answer=answer.decode()))


async def sweep(connection: AsyncConnection, now: datetime) -> int:
    """Delete some of the expired records, oldest first, passing over those that are in somebody's hand; how many."""
    key = (keys.c.workspace_id, keys.c.principal, keys.c.operation, keys.c.key)
    expired = (
        select(*key)
        .where(keys.c.created_at <= to_text(now - LIFETIME))
        .order_by(keys.c.created_at)
        .limit(SWEEP_AT_MOST)
        .with_for_update(skip_locked=True)
    )
    return (await connection.execute(delete(keys).where(tuple_(*key).in_(expired)))).rowcount


def _is(workspace: str, request: IdempotentRequest) -> tuple[ColumnElement[bool], ...]:
    return (
        keys.c.workspace_id == workspace,
        keys.c.principal == request.principal,
        keys.c.operation == request.operation,
        keys.c.key == request.key,
    )
