"""Applications that users let in: clients, codes, grants, refresh tokens, and the keys that sign access tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "oauth_clients",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("redirect_uris", sa.Text(), nullable=False, comment="separated by spaces"),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), comment="the operator; null for a client that registered itself"),
        sa.Column("used_at", sa.Text(), comment="when somebody last let it in; null for never"),
        sa.PrimaryKeyConstraint("id", name="pk_oauth_clients"),
    )
    op.create_index("ix_oauth_clients_created_at", "oauth_clients", ["created_at"])
    op.create_table(
        "oauth_client_documents",
        sa.Column("client_id", sa.Text(), nullable=False, comment="where the document is"),
        sa.Column("document", sa.Text(), nullable=False, comment="as it came"),
        sa.Column("fetched_at", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("client_id", name="pk_oauth_client_documents"),
    )
    op.create_index("ix_oauth_client_documents_fetched_at", "oauth_client_documents", ["fetched_at"])
    op.create_table(
        "oauth_codes",
        sa.Column("digest", sa.Text(), nullable=False, comment="SHA-256 of the code, hexadecimal"),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("client_name", sa.Text(), nullable=False),
        sa.Column("redirect_uri", sa.Text(), nullable=False),
        sa.Column("challenge", sa.Text(), nullable=False, comment="of PKCE, S256"),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False, comment="separated by spaces"),
        sa.Column("expires_at", sa.Text(), nullable=False),
        sa.Column("grant_id", sa.Text(), comment="what it was redeemed for; null before"),
        sa.PrimaryKeyConstraint("digest", name="pk_oauth_codes"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name="fk_oauth_codes_workspace_id"),
    )
    op.create_index("ix_oauth_codes_expires_at", "oauth_codes", ["expires_at"])
    op.create_table(
        "oauth_grants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("client_name", sa.Text(), nullable=False, comment="as the user saw it"),
        sa.Column("redirect_uri", sa.Text(), nullable=False, comment="where the user was sent back to"),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False, comment="separated by spaces"),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Text(), nullable=False, comment="put off with each refresh"),
        sa.Column("revoked_at", sa.Text()),
        sa.Column("used_at", sa.Text(), comment="to the minute, about"),
        sa.Column("current", sa.Text(), nullable=False, comment="digest of the refresh token that was issued last"),
        sa.Column("previous", sa.Text(), comment="digest of the one that it was issued for"),
        sa.Column(
            "nonce",
            sa.Text(),
            nullable=False,
            comment="random, with which the current one follows from the previous one",
        ),
        sa.Column("rotated_at", sa.Text(), nullable=False, comment="when the previous one was first used"),
        sa.PrimaryKeyConstraint("id", name="pk_oauth_grants"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name="fk_oauth_grants_workspace_id"),
    )
    op.create_index("ix_oauth_grants_workspace_id_user_id", "oauth_grants", ["workspace_id", "user_id"])
    op.create_index("ix_oauth_grants_expires_at", "oauth_grants", ["expires_at"])
    op.create_table(
        "oauth_refresh_tokens",
        sa.Column("digest", sa.Text(), nullable=False, comment="SHA-256 of the token, hexadecimal"),
        sa.Column("grant_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_oauth_refresh_tokens"),
        sa.ForeignKeyConstraint(
            ["grant_id"], ["oauth_grants.id"], name="fk_oauth_refresh_tokens_grant_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_oauth_refresh_tokens_grant_id", "oauth_refresh_tokens", ["grant_id"])
    op.create_index("ix_oauth_refresh_tokens_created_at", "oauth_refresh_tokens", ["created_at"])
    op.create_table(
        "oauth_signing_keys",
        sa.Column("id", sa.Text(), nullable=False, comment="the thumbprint of the public key (RFC 7638)"),
        sa.Column("private_key", sa.Text(), nullable=False, comment="PKCS #8, PEM; never logged"),
        sa.Column("signs_from", sa.Text(), nullable=False, comment="until the next one does"),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_oauth_signing_keys"),
    )


def downgrade() -> None:
    for table in (
        "oauth_signing_keys",
        "oauth_refresh_tokens",
        "oauth_grants",
        "oauth_codes",
        "oauth_client_documents",
        "oauth_clients",
    ):
        op.drop_table(table)
