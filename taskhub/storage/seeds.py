"""What a new database starts with: its deployment, the default workspace, and reference data to work with at once."""

import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import Connection, Table, insert, select

from broadcaster.log import random_epoch
from taskhub.storage import schema
from taskhub.storage.names import slug
from taskhub.storage.times import to_text, utc_now

DEFAULT_WORKSPACE: Final = "default"
DEFAULT_KEY_PREFIX: Final = "TH"

STATUSES: Final = (
    ("Received", "todo"),
    ("In Progress", "active"),
    ("Verifying", "review"),
    ("Completed", "done"),
    ("Waiting", "waiting"),
    ("Cancelled", "cancelled"),
)
CHANNELS: Final = ("Email", "Phone", "Teams", "Chat/LLM", "Web Form")
CATEGORIES: Final = {
    "Inquiry": ("How to Use", "Account and Access", "Billing", "Other Inquiry"),
    "Data Correction": ("Master Data", "Transaction Data", "Bulk Update"),
    "Incident": ("Outage", "Slow Response", "Wrong Result", "Security"),
    "UX Improvement": ("Screen Layout", "Wording", "Accessibility"),
    "Feature Request": ("New Function", "Change of Function", "Integration"),
}

BEFORE_ALL_EVENTS: Final = "1970-01-01T00:00:00.000Z"


def new_deployment_id() -> str:
    """A new name for the channels of a database."""
    return secrets.token_hex(8)


def new_secret() -> str:
    """A new key for what clients carry: 32 random bytes in hexadecimal."""
    return secrets.token_hex(32)


def plant(connection: Connection) -> None:
    """Add the deployment and the default workspace with its reference data, unless they are there."""
    now = to_text(utc_now())
    if connection.execute(select(schema.deployment.c.id)).first() is None:
        connection.execute(
            insert(schema.deployment).values(id=new_deployment_id(), secret=new_secret(), created_at=now)
        )
    workspaces = schema.workspaces
    if connection.execute(select(workspaces.c.id).where(workspaces.c.id == DEFAULT_WORKSPACE)).first() is None:
        add_workspace(connection, DEFAULT_WORKSPACE, DEFAULT_KEY_PREFIX, "Default")


def add_workspace(connection: Connection, id: str, key_prefix: str, name: str) -> None:
    """Add a workspace with an empty log and the seeds of its reference data."""
    now = to_text(utc_now())
    connection.execute(
        insert(schema.workspaces).values(
            id=id, key_prefix=key_prefix, name=name, next_no=1, epoch=random_epoch(), head_seq=0,
            head_time=BEFORE_ALL_EVENTS, oldest_seq=1, references_version=1, created_at=now,
        )
    )  # fmt: skip
    add = _Planter(connection, id, now)
    add.rows(
        schema.statuses,
        [{"name": text, "phase": phase, "is_default": text == STATUSES[0][0]} for text, phase in STATUSES],
    )
    add.rows(schema.request_channels, [{"name": text} for text in CHANNELS])
    add.rows(schema.categories, [{"name": text} for text in CATEGORIES])
    add.rows(
        schema.category_details,
        [{"name": text, "category_id": slug(category)} for category, texts in CATEGORIES.items() for text in texts],
    )


class _Planter:
    """Adds reference rows in the order given."""

    def __init__(self, connection: Connection, workspace: str, now: str) -> None:
        self._connection = connection
        self._common = {"workspace_id": workspace, "active": True, "created_at": now, "updated_at": now}

    def rows(self, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
        taken: set[str] = set()
        values = []
        for order, row in enumerate(rows, start=1):
            row_id = slug(row["name"], taken)
            taken.add(row_id)
            values.append({**self._common, "id": row_id, "order_no": order, **row})
        self._connection.execute(insert(table), values)
