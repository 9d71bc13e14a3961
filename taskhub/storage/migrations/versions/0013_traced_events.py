"""The trace that an event belongs to."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "events",
        sa.Column("trace", sa.Text(), comment="traceparent of the request it comes from, where that had one"),
    )


def downgrade() -> None:
    with op.batch_alter_table("events") as events:
        events.drop_column("trace")
