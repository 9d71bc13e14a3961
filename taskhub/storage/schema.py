"""All tables, for SQLite and PostgreSQL alike.

Reference rows have text ids, slugs of their first name that stay when the row is renamed. Times are text,
`2026-11-20T09:12:03.123Z`, and dates `2026-11-20`: of fixed width, so they compare as they sort, and on both databases
they are stored as they go over the wire.
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import TSVECTOR

METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

deployment: Final = Table(
    "deployment",
    METADATA,
    Column("id", Text, primary_key=True, comment="names the channels of this database's deployment on a shared Redis"),
    Column("secret", Text, nullable=False, comment="hexadecimal; signs session ids and cursors"),
    Column(
        "credentials_version",
        BigInteger,
        nullable=False,
        server_default="1",
        comment="raised by every change of what a key is good for",
    ),
    Column("created_at", Text, nullable=False),
)
"""One row, made with the database."""

workspaces: Final = Table(
    "workspaces",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("key_prefix", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("next_no", BigInteger, nullable=False, comment="the number of the next ticket"),
    Column("epoch", Text, nullable=False),
    Column("head_seq", BigInteger, nullable=False),
    Column("head_time", Text, nullable=False, comment="the time of the newest event: times never go back in a log"),
    Column("oldest_seq", BigInteger, nullable=False),
    Column("references_version", BigInteger, nullable=False, comment="raised by every change of reference data"),
    Column(
        "ticket_counts",
        Text,
        nullable=False,
        server_default="{}",
        comment="JSON: by status the tickets that are not deleted; kept with each change",
    ),
    Column("created_at", Text, nullable=False),
    UniqueConstraint("key_prefix"),
)


def _in_workspace(*columns: Column[Any]) -> tuple[Any, ...]:
    """The columns and key of a reference table, whose ids are unique within a workspace."""
    return (
        Column("workspace_id", Text, ForeignKey("workspaces.id"), nullable=False),
        Column("id", Text, nullable=False),
        Column("name", Text, nullable=False),
        *columns,
        Column("active", Boolean, nullable=False),
        Column("created_at", Text, nullable=False),
        Column("updated_at", Text, nullable=False),
        PrimaryKeyConstraint("workspace_id", "id"),
    )


users: Final = Table(
    "users",
    METADATA,
    *_in_workspace(
        Column("email", Text),
        Column("kind", Text, nullable=False, comment="human, agent, service"),
        Column("role", Text, nullable=False, comment="requester, agent, manager, viewer, operator"),
    ),
)
accounts: Final = Table("accounts", METADATA, *_in_workspace(Column("order_no", Integer, nullable=False)))
categories: Final = Table("categories", METADATA, *_in_workspace(Column("order_no", Integer, nullable=False)))
category_details: Final = Table(
    "category_details",
    METADATA,
    *_in_workspace(Column("category_id", Text, nullable=False), Column("order_no", Integer, nullable=False)),
    ForeignKeyConstraint(["workspace_id", "category_id"], ["categories.workspace_id", "categories.id"]),
)
statuses: Final = Table(
    "statuses",
    METADATA,
    *_in_workspace(
        Column("order_no", Integer, nullable=False),
        Column("phase", Text, nullable=False, comment="todo, active, waiting, review, done, cancelled"),
        Column("is_default", Boolean, nullable=False, comment="the one that a new ticket gets"),
    ),
)
request_channels: Final = Table(
    "request_channels", METADATA, *_in_workspace(Column("order_no", Integer, nullable=False))
)
response_categories: Final = Table(
    "response_categories", METADATA, *_in_workspace(Column("order_no", Integer, nullable=False))
)


def _refers(column: str, table: str) -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["workspace_id", column], [f"{table}.workspace_id", f"{table}.id"])


def _of_ticket(column: str = "ticket_no") -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["workspace_id", column], ["tickets.workspace_id", "tickets.no"])


def _of_present(name: str, *columns: str) -> Index:
    """An index over the tickets that are not deleted."""
    present = text("deleted_at IS NULL")
    return Index(f"ix_tickets_{name}", "workspace_id", *columns, sqlite_where=present, postgresql_where=present)


tickets: Final = Table(
    "tickets",
    METADATA,
    Column("workspace_id", Text, ForeignKey("workspaces.id"), nullable=False),
    Column("no", BigInteger, nullable=False, comment="the number in the key; dense per workspace"),
    Column("version", Integer, nullable=False),
    Column("summary", Text, nullable=False),
    Column("description", Text),
    Column("status_id", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False, comment="0 none to 4 urgent"),
    Column("assignee_id", Text),
    Column("requestor_id", Text),
    Column("account_id", Text),
    Column("category_id", Text),
    Column("category_detail_id", Text),
    Column("channel_id", Text),
    Column("reception_at", Text, nullable=False),
    Column("due", Text),
    Column("completion_date", Text),
    Column("actual_effort_hours", Float),
    Column("response_category_id", Text),
    Column("response_details", Text),
    Column("has_defect", Boolean),
    Column("external_ticket_id", Text),
    Column("remarks", Text),
    Column("parent_no", BigInteger),
    Column("waiting_reason", Text),
    Column("progress_percent", SmallInteger),
    Column("progress_note", Text),
    Column(
        "blocked",
        Boolean,
        nullable=False,
        server_default=false(),
        comment="whether an open ticket blocks it; kept with each change",
    ),
    Column(
        "last_attachment",
        Integer,
        nullable=False,
        server_default="0",
        comment="the number of the newest attachment; it is never reset",
    ),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
    Column("deleted_at", Text),
    PrimaryKeyConstraint("workspace_id", "no"),
    _refers("status_id", "statuses"),
    _refers("assignee_id", "users"),
    _refers("requestor_id", "users"),
    _refers("account_id", "accounts"),
    _refers("category_id", "categories"),
    _refers("category_detail_id", "category_details"),
    _refers("channel_id", "request_channels"),
    _refers("response_category_id", "response_categories"),
    _of_ticket("parent_no"),
    Index(None, "workspace_id", "updated_at", "no"),
    Index(None, "workspace_id", "status_id", "no"),
    Index("ix_tickets_assignee", "workspace_id", "assignee_id", "updated_at", "no"),
    # Deleted tickets refer to them too, and who removes a row of those is checked against all.
    Index("ix_tickets_account", "workspace_id", "account_id", "updated_at", "no"),
    Index("ix_tickets_category", "workspace_id", "category_id", "updated_at", "no"),
    # Without what is deleted. Somebody's tickets of each status are counted in the index alone (SQLite looks at
    # `deleted_at` even so), and it has the newest first.
    _of_present("board", "status_id", "updated_at", "no", "assignee_id", "deleted_at"),
    _of_present("priority", "priority", "no"),
    _of_present("ready", "status_id", "priority", "due", "no"),
    _of_present("due", "due", "no"),
    _of_present("external", "external_ticket_id"),
    Index(None, "workspace_id", "parent_no"),
)

# A table and not a column of text: a label is looked for exactly and through an index, with one expression for both.
ticket_labels: Final = Table(
    "ticket_labels",
    METADATA,
    Column("workspace_id", Text, nullable=False),
    Column("ticket_no", BigInteger, nullable=False),
    Column("label", Text, nullable=False),
    PrimaryKeyConstraint("workspace_id", "ticket_no", "label"),
    _of_ticket(),
    Index(None, "workspace_id", "label", "ticket_no"),
)

ticket_relations: Final = Table(
    "ticket_relations",
    METADATA,
    Column("workspace_id", Text, nullable=False),
    Column("from_no", BigInteger, nullable=False),
    Column("kind", Text, nullable=False, comment="blocks, related, duplicates: `from` blocks `to`"),
    Column("to_no", BigInteger, nullable=False),
    Column("created_at", Text, nullable=False),
    PrimaryKeyConstraint("workspace_id", "from_no", "kind", "to_no"),
    _of_ticket("from_no"),
    _of_ticket("to_no"),
    Index(None, "workspace_id", "to_no", "kind"),
)

leases: Final = Table(
    "leases",
    METADATA,
    Column("workspace_id", Text, nullable=False),
    Column("ticket_no", BigInteger, nullable=False),
    Column("token", BigInteger, nullable=False, comment="counts the claims of the ticket; it is never reset"),
    Column("holder", Text, comment="the actor that holds the ticket; null when nobody does"),
    Column("seconds", Integer, nullable=False, comment="for how long each renewal extends it"),
    Column("acquired_at", Text, nullable=False),
    Column("expires_at", Text, nullable=False),
    Column("told_seq", BigInteger, nullable=False, comment="up to here the holder was told of comments"),
    Column("expiries", Integer, nullable=False, comment="how often in a row nobody gave it back"),
    PrimaryKeyConstraint("workspace_id", "ticket_no"),
    _of_ticket(),
)
"""A row for each ticket that was ever claimed. Renewing one changes no ticket, so it has no place among the tickets."""
Index("ix_leases_held", leases.c.expires_at, sqlite_where=leases.c.holder.is_not(None),
      postgresql_where=leases.c.holder.is_not(None))  # fmt: skip

comments: Final = Table(
    "comments",
    METADATA,
    Column("workspace_id", Text, nullable=False),
    Column("seq", BigInteger, nullable=False, comment="the seq of the event that carried it"),
    Column("ticket_no", BigInteger, nullable=False),
    Column("author", Text, nullable=False, comment="the actor, such as user:alice"),
    Column("kind", Text, nullable=False, comment="note, question, answer, decision"),
    Column("body", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("edited_at", Text),
    Column("lease_token", BigInteger, comment="the one that it was written with; null when with none"),
    PrimaryKeyConstraint("workspace_id", "seq"),
    _of_ticket(),
    Index(None, "workspace_id", "ticket_no", "seq"),
)

search_documents: Final = Table(
    "search_documents",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("workspace_id", Text, nullable=False),
    Column("ticket_no", BigInteger, nullable=False),
    Column("comment_seq", BigInteger, comment="null for the texts of the ticket itself"),
    Column("words", Text().with_variant(TSVECTOR, "postgresql"), nullable=False),
    _of_ticket(),
    Index(None, "workspace_id", "ticket_no", "comment_seq"),
)
"""The words by which tickets are found (see search). On SQLite triggers keep the FTS5 table `search_words` over it."""
# Without PostgreSQL's list of pending entries, which every search would have to read through after many writes.
Index(
    "ix_search_documents_words",
    search_documents.c.words,
    postgresql_using="gin",
    postgresql_with={"fastupdate": "off"},
).ddl_if(dialect="postgresql")

attachments: Final = Table(
    "attachments",
    METADATA,
    Column("workspace_id", Text, nullable=False),
    Column("ticket_no", BigInteger, nullable=False),
    Column("no", Integer, nullable=False),
    Column("file_name", Text, nullable=False),
    Column("url", Text, nullable=False, comment="http or https"),
    Column("created_at", Text, nullable=False),
    PrimaryKeyConstraint("workspace_id", "ticket_no", "no"),
    _of_ticket(),
)

# No foreign key to workspaces here and below: the row that would be checked was updated in the same transaction.
events: Final = Table(
    "events",
    METADATA,
    Column("workspace_id", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("id", Text, nullable=False),
    Column("time", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("subject", Text),
    Column("actor", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("ticket_version", Integer),
    Column("batch_id", Text),
    Column("request_id", Text),
    Column("nonce", BigInteger, nullable=False, comment="random: tells this row from another that took its seq later"),
    Column("data", Text, nullable=False, comment="text and not JSON, so that published bytes stay as they were"),
    Column("trace", Text, comment="traceparent of the request it comes from, where that had one"),
    PrimaryKeyConstraint("workspace_id", "seq"),
    Index(None, "workspace_id", "subject", "seq"),
)

batches: Final = Table(
    "batches",
    METADATA,
    Column("workspace_id", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("undoes", Text, comment="the batch that this one took back"),
    Column("undone_by", Text, comment="the batch that took this one back"),
    Column("first_seq", BigInteger, nullable=False, comment="its events are those of this id from here …"),
    Column("last_seq", BigInteger, nullable=False, comment="… to here"),
    Column("created_at", Text, nullable=False),
    PrimaryKeyConstraint("workspace_id", "id"),
)
"""Changes that were made together and can be undone together."""

# No foreign key to users: a row that is removed takes its keys with it (see keys), and whose it was stays readable.
api_keys: Final = Table(
    "api_keys",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("workspace_id", Text, ForeignKey("workspaces.id"), nullable=False),
    Column("user_id", Text, nullable=False),
    Column("name", Text, nullable=False, comment="what it is for"),
    Column("digest", Text, nullable=False, comment="SHA-256 of the key, hexadecimal; the key itself is kept nowhere"),
    Column("scopes", Text, comment="separated by spaces; null: all that the role of its user may do"),
    Column("created_at", Text, nullable=False),
    Column("created_by", Text, nullable=False, comment="the actor"),
    Column("expires_at", Text),
    Column("revoked_at", Text),
    Column("last_used_at", Text, comment="to the minute, about"),
    Column("limits", Text, comment="JSON: those that it has of its own; null where the settings say all of them"),
    UniqueConstraint("digest"),
    Index(None, "workspace_id", "user_id"),
)

idempotency_keys: Final = Table(
    "idempotency_keys",
    METADATA,
    Column("workspace_id", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("fingerprint", Text, nullable=False, comment="SHA-256 of the request"),
    Column("answer", Text, nullable=False, comment="of the first request, stored with its effect"),
    Column("created_at", Text, nullable=False),
    PrimaryKeyConstraint("workspace_id", "principal", "operation", "key"),
    Index(None, "created_at"),
)

# No foreign key to workspaces, as above: entries are added in the transactions of changes.
audit: Final = Table(
    "audit",
    METADATA,
    Column("workspace_id", Text, nullable=False),
    Column("id", Text, nullable=False, comment="sorts as the times do"),
    Column("time", Text, nullable=False),
    Column("actor", Text, comment="null where nobody could be told"),
    Column("credential", Text, comment="the id of the key or session"),
    Column("address", Text, comment="the client's"),
    Column("request_id", Text),
    Column("action", Text, nullable=False),
    Column("target", Text, comment="the id of what it was done to"),
    Column("outcome", Text, nullable=False, comment="success, failure, denied"),
    Column("details", Text, nullable=False, comment="JSON"),
    PrimaryKeyConstraint("workspace_id", "id"),
)
"""What counts for security (see taskhub/audit). Rows are added and deleted, never changed."""
# How people sign in. Unlike keys these go with their user: nothing else refers to them.
passwords: Final = Table(
    "passwords",
    METADATA,
    Column("workspace_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("hash", Text, nullable=False, comment="with how it was made: scrypt$N$r$p$salt$key"),
    Column("changed_at", Text, nullable=False),
    PrimaryKeyConstraint("workspace_id", "user_id"),
    _refers("user_id", "users"),
)
sessions: Final = Table(
    "sessions",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("workspace_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("digest", Text, nullable=False, comment="SHA-256 of the cookie's value, hexadecimal"),
    Column("opened_by", Text, nullable=False, comment="password, link, openid"),
    Column("user_agent", Text, nullable=False, comment="of the browser, shortened"),
    Column("created_at", Text, nullable=False),
    Column("last_used_at", Text, nullable=False, comment="to the minute, about"),
    Column("expires_at", Text, nullable=False, comment="its end, however much it is used"),
    Column("ended_at", Text, comment="when somebody ended it"),
    _refers("user_id", "users"),
    UniqueConstraint("digest"),
    Index(None, "workspace_id", "user_id"),
    Index(None, "expires_at"),
)
sign_in_links: Final = Table(
    "sign_in_links",
    METADATA,
    Column("digest", Text, primary_key=True, comment="SHA-256 of what the link opens with, hexadecimal"),
    Column("workspace_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("created_by", Text, nullable=False, comment="the actor"),
    Column("expires_at", Text, nullable=False),
    Column("used_at", Text),
    _refers("user_id", "users"),
    Index(None, "workspace_id", "user_id"),
)
identities: Final = Table(
    "identities",
    METADATA,
    Column("workspace_id", Text, nullable=False),
    Column("issuer", Text, nullable=False, comment="the OpenID provider"),
    Column("subject", Text, nullable=False, comment="who it is to the provider, for ever"),
    Column("user_id", Text, nullable=False),
    Column("email", Text, comment="by which they were matched, for people to read"),
    Column("created_at", Text, nullable=False),
    PrimaryKeyConstraint("workspace_id", "issuer", "subject"),
    _refers("user_id", "users"),
    UniqueConstraint("workspace_id", "user_id", "issuer"),
)
OF_USERS: Final = (passwords, sessions, sign_in_links, identities)
"""What is removed with a user."""

stream_tokens: Final = Table(
    "stream_tokens",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("workspace_id", Text, ForeignKey("workspaces.id"), nullable=False),
    Column("digest", Text, nullable=False, comment="SHA-256 of the token, hexadecimal"),
    Column("actor", Text, nullable=False),
    Column("owner", Text, comment="whose credential it was, where the actor named itself"),
    Column("scopes", Text, nullable=False, comment="separated by spaces"),
    Column("credential", Text, comment="the id of what it was made with, if that is stored"),
    Column("issuer", Text, nullable=False, comment="what vouched where it is not"),
    Column("parameters", Text, nullable=False, comment="of its stream: JSON, [[name, text], …]"),
    Column("created_at", Text, nullable=False),
    Column("expires_at", Text, nullable=False, comment="whatever happens"),
    Column("good_until", Text, nullable=False, comment="unless its stream is seen open before that"),
    Column("stream", Text, comment="the one it opened last"),
    Column("instance", Text, comment="where that is"),
    UniqueConstraint("digest"),
    Index(None, "good_until"),
)

oauth_clients: Final = Table(
    "oauth_clients",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("redirect_uris", Text, nullable=False, comment="separated by spaces"),
    Column("created_at", Text, nullable=False),
    Column("created_by", Text, comment="the operator; null for a client that registered itself"),
    Column("used_at", Text, comment="when somebody last let it in; null for never"),
    Index(None, "created_at"),
)
"""Applications that are known by an id which was given to them here."""

oauth_client_documents: Final = Table(
    "oauth_client_documents",
    METADATA,
    Column("client_id", Text, primary_key=True, comment="where the document is"),
    Column("document", Text, nullable=False, comment="as it came"),
    Column("fetched_at", Text, nullable=False),
    Column("expires_at", Text, nullable=False),
    Index(None, "fetched_at"),
)
"""What applications say of themselves that are known by the address where they say it."""

# No foreign key to users, as with api_keys; none to clients, for some are documents, and a grant outlives its client.
oauth_codes: Final = Table(
    "oauth_codes",
    METADATA,
    Column("digest", Text, primary_key=True, comment="SHA-256 of the code, hexadecimal"),
    Column("workspace_id", Text, ForeignKey("workspaces.id"), nullable=False),
    Column("user_id", Text, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("client_name", Text, nullable=False),
    Column("redirect_uri", Text, nullable=False),
    Column("challenge", Text, nullable=False, comment="of PKCE, S256"),
    Column("resource", Text, nullable=False),
    Column("scopes", Text, nullable=False, comment="separated by spaces"),
    Column("expires_at", Text, nullable=False),
    Column("grant_id", Text, comment="what it was redeemed for; null before"),
    Index(None, "expires_at"),
)

oauth_grants: Final = Table(
    "oauth_grants",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("workspace_id", Text, ForeignKey("workspaces.id"), nullable=False),
    Column("user_id", Text, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("client_name", Text, nullable=False, comment="as the user saw it"),
    Column("redirect_uri", Text, nullable=False, comment="where the user was sent back to"),
    Column("resource", Text, nullable=False),
    Column("scopes", Text, nullable=False, comment="separated by spaces"),
    Column("created_at", Text, nullable=False),
    Column("expires_at", Text, nullable=False, comment="put off with each refresh"),
    Column("revoked_at", Text),
    Column("used_at", Text, comment="to the minute, about"),
    Column("current", Text, nullable=False, comment="digest of the refresh token that was issued last"),
    Column("previous", Text, comment="digest of the one that it was issued for"),
    Column("nonce", Text, nullable=False, comment="random, with which the current one follows from the previous one"),
    Column("rotated_at", Text, nullable=False, comment="when the previous one was first used"),
    Index(None, "workspace_id", "user_id"),
    Index(None, "expires_at"),
)
"""What users let applications do in their name: one for each time that an application was connected."""

oauth_refresh_tokens: Final = Table(
    "oauth_refresh_tokens",
    METADATA,
    Column("digest", Text, primary_key=True, comment="SHA-256 of the token, hexadecimal"),
    Column("grant_id", Text, ForeignKey("oauth_grants.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", Text, nullable=False),
    Index(None, "grant_id"),
    Index(None, "created_at"),
)
"""Also those that are used up: who shows one of them has what was stolen, or was stolen from."""

oauth_signing_keys: Final = Table(
    "oauth_signing_keys",
    METADATA,
    Column("id", Text, primary_key=True, comment="the thumbprint of the public key (RFC 7638)"),
    Column("private_key", Text, nullable=False, comment="PKCS #8, PEM; never logged"),
    Column("signs_from", Text, nullable=False, comment="until the next one does"),
    Column("created_at", Text, nullable=False),
)

SIGNED_IN: Final = (
    sessions, sign_in_links, oauth_client_documents, oauth_codes, oauth_grants, oauth_refresh_tokens,
    oauth_signing_keys,
)  # fmt: skip
"""Who is signed in, and what was let in: no data, and what was ended since would be good again after a restore."""
