"""Who somebody is to an OpenID provider."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "identities",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False, comment="the OpenID provider"),
        sa.Column("subject", sa.Text(), nullable=False, comment="who it is to the provider, for ever"),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), comment="by which they were matched, for people to read"),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "issuer", "subject", name="pk_identities"),
        sa.ForeignKeyConstraint(
            ["workspace_id", "user_id"], ["users.workspace_id", "users.id"], name="fk_identities_workspace_id_user_id"
        ),
        sa.UniqueConstraint("workspace_id", "user_id", "issuer", name="uq_identities_workspace_id_user_id_issuer"),
    )
    _say_of_sessions("password, link, openid", before="password, link")


def downgrade() -> None:
    _say_of_sessions("password, link", before="password, link, openid")
    op.drop_table("identities")


def _say_of_sessions(comment: str, before: str) -> None:
    """How they may have been opened. SQLite keeps no comments."""
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column(
            "sessions",
            "opened_by",
            existing_type=sa.Text(),
            existing_nullable=False,
            comment=comment,
            existing_comment=before,
        )
