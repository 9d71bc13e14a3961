"""The audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False, comment="sorts as the times do"),
        sa.Column("time", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), comment="null where nobody could be told"),
        sa.Column("credential", sa.Text(), comment="the id of the key or session"),
        sa.Column("address", sa.Text(), comment="the client's"),
        sa.Column("request_id", sa.Text()),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), comment="the id of what it was done to"),
        sa.Column("outcome", sa.Text(), nullable=False, comment="success, failure, denied"),
        sa.Column("details", sa.Text(), nullable=False, comment="JSON"),
        sa.PrimaryKeyConstraint("workspace_id", "id", name="pk_audit"),
    )


def downgrade() -> None:
    op.drop_table("audit")
