"""What agents need that share a key: a comment knows the lease that it was written under."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    told = "the one that it was written with; null when with none"
    op.add_column("comments", sa.Column("lease_token", sa.BigInteger(), nullable=True, comment=told))


def downgrade() -> None:
    op.drop_column("comments", "lease_token")
