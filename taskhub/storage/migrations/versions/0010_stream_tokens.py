"""Stream tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "stream_tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False, comment="SHA-256 of the token, hexadecimal"),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), comment="whose credential it was, where the actor named itself"),
        sa.Column("scopes", sa.Text(), nullable=False, comment="separated by spaces"),
        sa.Column("credential", sa.Text(), comment="the id of what it was made with, if that is stored"),
        sa.Column("issuer", sa.Text(), nullable=False, comment="what vouched where it is not"),
        sa.Column("parameters", sa.Text(), nullable=False, comment="of its stream: JSON, [[name, text], …]"),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Text(), nullable=False, comment="whatever happens"),
        sa.Column("good_until", sa.Text(), nullable=False, comment="unless its stream is seen open before that"),
        sa.Column("stream", sa.Text(), comment="the one it opened last"),
        sa.Column("instance", sa.Text(), comment="where that is"),
        sa.PrimaryKeyConstraint("id", name="pk_stream_tokens"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name="fk_stream_tokens_workspace_id"),
        sa.UniqueConstraint("digest", name="uq_stream_tokens_digest"),
    )
    op.create_index("ix_stream_tokens_good_until", "stream_tokens", ["good_until"])


def downgrade() -> None:
    op.drop_index("ix_stream_tokens_good_until", "stream_tokens")
    op.drop_table("stream_tokens")
