"""Indexes for lists of an account or a category, and for removing either; each idempotency record has its answer."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_WAS = "null only inside the transaction that has the effect"
_IS = "of the first request, stored with its effect"


def upgrade() -> None:
    for name in ("account", "category"):
        op.create_index(f"ix_tickets_{name}", "tickets", ["workspace_id", f"{name}_id", "updated_at", "no"])
    with op.batch_alter_table("idempotency_keys") as keys:
        keys.alter_column("answer", existing_type=sa.Text(), nullable=False, comment=_IS, existing_comment=_WAS)


def downgrade() -> None:
    with op.batch_alter_table("idempotency_keys") as keys:
        keys.alter_column("answer", existing_type=sa.Text(), nullable=True, comment=_WAS, existing_comment=_IS)
    for name in ("category", "account"):
        op.drop_index(f"ix_tickets_{name}", "tickets")
