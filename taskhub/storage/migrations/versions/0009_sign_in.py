"""Passwords, sessions and sign-in links."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "passwords",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False, comment="with how it was made: scrypt$N$r$p$salt$key"),
        sa.Column("changed_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "user_id", name="pk_passwords"),
        sa.ForeignKeyConstraint(
            ["workspace_id", "user_id"], ["users.workspace_id", "users.id"], name="fk_passwords_workspace_id_user_id"
        ),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False, comment="SHA-256 of the cookie's value, hexadecimal"),
        sa.Column("opened_by", sa.Text(), nullable=False, comment="password, link"),
        sa.Column("user_agent", sa.Text(), nullable=False, comment="of the browser, shortened"),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("last_used_at", sa.Text(), nullable=False, comment="to the minute, about"),
        sa.Column("expires_at", sa.Text(), nullable=False, comment="its end, however much it is used"),
        sa.Column("ended_at", sa.Text(), comment="when somebody ended it"),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.ForeignKeyConstraint(
            ["workspace_id", "user_id"], ["users.workspace_id", "users.id"], name="fk_sessions_workspace_id_user_id"
        ),
        sa.UniqueConstraint("digest", name="uq_sessions_digest"),
    )
    op.create_index("ix_sessions_workspace_id_user_id", "sessions", ["workspace_id", "user_id"])
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])
    op.create_table(
        "sign_in_links",
        sa.Column("digest", sa.Text(), nullable=False, comment="SHA-256 of what the link opens with, hexadecimal"),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False, comment="the actor"),
        sa.Column("expires_at", sa.Text(), nullable=False),
        sa.Column("used_at", sa.Text()),
        sa.PrimaryKeyConstraint("digest", name="pk_sign_in_links"),
        sa.ForeignKeyConstraint(
            ["workspace_id", "user_id"],
            ["users.workspace_id", "users.id"],
            name="fk_sign_in_links_workspace_id_user_id",
        ),
    )
    op.create_index("ix_sign_in_links_workspace_id_user_id", "sign_in_links", ["workspace_id", "user_id"])


def downgrade() -> None:
    op.drop_table("sign_in_links")
    op.drop_table("sessions")
    op.drop_table("passwords")
