"""The search index, filled from the tickets and comments that are there, and indexes for the board and lists."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from taskhub.storage.search import rows_of

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_CHUNK = 500

# The words are stored once, in the table; FTS5 keeps the index over it. Its tokenizer only has to cut at the spaces:
# `ascii` takes every character beyond ASCII for part of a word, whatever Unicode says of it in some later version.
_FTS = (
    "CREATE VIRTUAL TABLE search_words"
    " USING fts5(words, content='search_documents', content_rowid='id', tokenize='ascii', prefix='1 2')",
    "CREATE TRIGGER search_documents_added AFTER INSERT ON search_documents BEGIN"
    " INSERT INTO search_words (rowid, words) VALUES (new.id, new.words); END",
    "CREATE TRIGGER search_documents_removed AFTER DELETE ON search_documents BEGIN"
    " INSERT INTO search_words (search_words, rowid, words) VALUES ('delete', old.id, old.words); END",
)

_LISTS = {
    "ix_tickets_board": ["status_id", "updated_at", "no", "assignee_id", "deleted_at"],
    "ix_tickets_priority": ["priority", "no"],
    "ix_tickets_external": ["external_ticket_id"],
}

_TICKETS = sa.text(
    "SELECT t.workspace_id, t.no, t.summary, t.description, t.external_ticket_id, t.remarks, t.response_details"
    " FROM tickets t WHERE (t.workspace_id, t.no) > (:workspace, :no) ORDER BY t.workspace_id, t.no LIMIT :limit"
)
_LABELS = sa.text(
    "SELECT ticket_no, label FROM ticket_labels WHERE workspace_id = :workspace AND ticket_no BETWEEN :first AND :last"
    " ORDER BY label"
)
_COMMENTS = sa.text(
    "SELECT workspace_id, seq AS no, ticket_no, body FROM comments"
    " WHERE (workspace_id, seq) > (:workspace, :no) ORDER BY workspace_id, seq LIMIT :limit"
)


def upgrade() -> None:
    op.create_table(
        "search_documents",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("ticket_no", sa.BigInteger(), nullable=False),
        sa.Column("comment_seq", sa.BigInteger(), nullable=True, comment="null for the texts of the ticket itself"),
        sa.Column("words", sa.Text().with_variant(postgresql.TSVECTOR(), "postgresql"), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "ticket_no"],
            ["tickets.workspace_id", "tickets.no"],
            name=op.f("fk_search_documents_workspace_id_ticket_no"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_search_documents")),
    )
    op.create_index(
        op.f("ix_search_documents_workspace_id_ticket_no_comment_seq"),
        "search_documents",
        ["workspace_id", "ticket_no", "comment_seq"],
        unique=False,
    )
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        for statement in _FTS:
            op.execute(statement)
    _fill(connection)
    if connection.dialect.name == "postgresql":
        # After the rows: an index is made faster than it is added to.
        op.create_index(
            "ix_search_documents_words",
            "search_documents",
            ["words"],
            unique=False,
            postgresql_using="gin",
            postgresql_with={"fastupdate": "off"},
        )
    op.drop_column("tickets", "search_text")
    op.drop_column("comments", "search_text")
    for name, columns in _LISTS.items():
        op.create_index(
            name,
            "tickets",
            ["workspace_id", *columns],
            unique=False,
            sqlite_where=sa.text("deleted_at IS NULL"),
            postgresql_where=sa.text("deleted_at IS NULL"),
        )


def downgrade() -> None:
    for name in _LISTS:
        op.drop_index(name, table_name="tickets")
    for table in ("tickets", "comments"):
        op.add_column(table, sa.Column("search_text", sa.Text(), nullable=False, server_default=""))
    op.execute("UPDATE tickets SET search_text = lower(summary)")
    op.execute("UPDATE comments SET search_text = lower(body)")
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE search_words")
    op.drop_table("search_documents")


def _fill(connection: sa.Connection) -> None:
    documents = sa.table(
        "search_documents",
        sa.column("workspace_id"),
        sa.column("ticket_no"),
        sa.column("comment_seq"),
        sa.column("words", sa.Text().with_variant(postgresql.TSVECTOR(), "postgresql")),
    )
    for page in _pages(connection, _TICKETS):
        labels = _labels(connection, page)
        rows: list[dict[str, Any]] = []
        for t in page:
            texts = (
                t.summary, t.description, t.external_ticket_id, t.remarks,
                t.response_details, *labels.get((t.workspace_id, t.no), ()),
            )  # fmt: skip
            rows += rows_of(connection, t.workspace_id, t.no, texts, None)
        connection.execute(sa.insert(documents), rows)
    for page in _pages(connection, _COMMENTS):
        rows = [row for c in page for row in rows_of(connection, c.workspace_id, c.ticket_no, [c.body], c.no)]
        if rows:
            connection.execute(sa.insert(documents), rows)


def _pages(connection: sa.Connection, statement: sa.TextClause) -> Iterator[list[Any]]:
    """Rows by workspace and number, some at a time."""
    workspace, no = "", -1
    while page := list(connection.execute(statement, {"workspace": workspace, "no": no, "limit": _CHUNK})):
        yield page
        workspace, no = page[-1].workspace_id, page[-1].no


def _labels(connection: sa.Connection, page: list[Any]) -> dict[tuple[str, int], list[str]]:
    found: dict[tuple[str, int], list[str]] = {}
    for workspace in {row.workspace_id for row in page}:
        numbers = [row.no for row in page if row.workspace_id == workspace]
        between = {"workspace": workspace, "first": min(numbers), "last": max(numbers)}
        for row in connection.execute(_LABELS, between):
            found.setdefault((workspace, row.ticket_no), []).append(row.label)
    return found
