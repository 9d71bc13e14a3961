"""What many agents need at once: comments know the lease that they were written under, no attachment gets the number of
one that was removed, and the next ticket to claim is found in an index."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_PRESENT = sa.text("deleted_at IS NULL")


def upgrade() -> None:
    told = "the one that it was written with; null when with none"
    op.add_column("comments", sa.Column("lease_token", sa.BigInteger(), nullable=True, comment=told))
    op.add_column(
        "tickets",
        sa.Column(
            "last_attachment",
            sa.Integer(),
            nullable=False,
            server_default="0",
            comment="the number of the newest attachment; it is never reset",
        ),
    )
    of_ticket = "FROM attachments a WHERE a.workspace_id = tickets.workspace_id AND a.ticket_no = tickets.no"
    op.execute(
        f"UPDATE tickets SET last_attachment = (SELECT max(a.no) {of_ticket})"  # noqa: S608  # made of constants
        f" WHERE EXISTS (SELECT 1 {of_ticket})"
    )
    op.create_index(
        "ix_tickets_ready",
        "tickets",
        ["workspace_id", "status_id", "priority", "due", "no"],
        sqlite_where=_PRESENT,
        postgresql_where=_PRESENT,
    )


def downgrade() -> None:
    op.drop_index("ix_tickets_ready", table_name="tickets")
    op.drop_column("tickets", "last_attachment")
    op.drop_column("comments", "lease_token")
