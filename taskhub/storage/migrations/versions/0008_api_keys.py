"""API keys."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "deployment",
        sa.Column(
            "credentials_version",
            sa.BigInteger(),
            nullable=False,
            server_default="1",
            comment="raised by every change of what a key is good for",
        ),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False, comment="what it is for"),
        sa.Column(
            "digest",
            sa.Text(),
            nullable=False,
            comment="SHA-256 of the key, hexadecimal; the key itself is kept nowhere",
        ),
        sa.Column("scopes", sa.Text(), comment="separated by spaces; null: all that the role of its user may do"),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False, comment="the actor"),
        sa.Column("expires_at", sa.Text()),
        sa.Column("revoked_at", sa.Text()),
        sa.Column("last_used_at", sa.Text(), comment="to the minute, about"),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name="fk_api_keys_workspace_id"),
        sa.UniqueConstraint("digest", name="uq_api_keys_digest"),
    )
    op.create_index("ix_api_keys_workspace_id_user_id", "api_keys", ["workspace_id", "user_id"])


def downgrade() -> None:
    op.drop_index("ix_api_keys_workspace_id_user_id", "api_keys")
    op.drop_table("api_keys")
    with op.batch_alter_table("deployment") as deployment:
        deployment.drop_column("credentials_version")
