"""An index for lists by due date."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_PRESENT = sa.text("deleted_at IS NULL")


def upgrade() -> None:
    op.create_index(
        "ix_tickets_due",
        "tickets",
        ["workspace_id", "due", "no"],
        sqlite_where=_PRESENT,
        postgresql_where=_PRESENT,
    )


def downgrade() -> None:
    op.drop_index("ix_tickets_due", "tickets")
