"""Leases, batches of changes, and whether a ticket is blocked."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_BLOCKED = """
UPDATE tickets SET blocked = EXISTS (
    SELECT 1 FROM ticket_relations r
    JOIN tickets b ON b.workspace_id = r.workspace_id AND b.no = r.from_no
    JOIN statuses s ON s.workspace_id = b.workspace_id AND s.id = b.status_id
    WHERE r.workspace_id = tickets.workspace_id AND r.to_no = tickets.no AND r.kind = 'blocks'
    AND b.deleted_at IS NULL AND s.phase NOT IN ('done', 'cancelled')
)
"""


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("ticket_no", sa.BigInteger(), nullable=False),
        sa.Column(
            "token", sa.BigInteger(), nullable=False, comment="counts the claims of the ticket; it is never reset"
        ),
        sa.Column("holder", sa.Text(), nullable=True, comment="the actor that holds the ticket; null when nobody does"),
        sa.Column("seconds", sa.Integer(), nullable=False, comment="for how long each renewal extends it"),
        sa.Column("acquired_at", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Text(), nullable=False),
        sa.Column("told_seq", sa.BigInteger(), nullable=False, comment="up to here the holder was told of comments"),
        sa.Column("expiries", sa.Integer(), nullable=False, comment="how often in a row nobody gave it back"),
        sa.ForeignKeyConstraint(
            ["workspace_id", "ticket_no"],
            ["tickets.workspace_id", "tickets.no"],
            name=op.f("fk_leases_workspace_id_ticket_no"),
        ),
        sa.PrimaryKeyConstraint("workspace_id", "ticket_no", name=op.f("pk_leases")),
    )
    op.create_index(
        "ix_leases_held",
        "leases",
        ["expires_at"],
        unique=False,
        sqlite_where=sa.text("holder IS NOT NULL"),
        postgresql_where=sa.text("holder IS NOT NULL"),
    )
    op.create_table(
        "batches",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("undoes", sa.Text(), nullable=True, comment="the batch that this one took back"),
        sa.Column("undone_by", sa.Text(), nullable=True, comment="the batch that took this one back"),
        sa.Column("first_seq", sa.BigInteger(), nullable=False, comment="its events are those of this id from here …"),
        sa.Column("last_seq", sa.BigInteger(), nullable=False, comment="… to here"),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_batches")),
    )
    op.add_column(
        "tickets",
        sa.Column(
            "blocked",
            sa.Boolean(),
            nullable=False,
            server_default=sa.false(),
            comment="whether an open ticket blocks it; kept with each change",
        ),
    )
    op.execute(_BLOCKED)


def downgrade() -> None:
    op.drop_column("tickets", "blocked")
    op.drop_table("batches")
    op.drop_index("ix_leases_held", table_name="leases")
    op.drop_table("leases")
