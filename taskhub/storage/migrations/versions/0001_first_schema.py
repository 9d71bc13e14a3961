"""The first schema: workspaces, reference data, tickets, and the event log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deployment",
        sa.Column(
            "id",
            sa.Text(),
            nullable=False,
            comment="names the channels of this database's deployment on a shared Redis",
        ),
        sa.Column("secret", sa.Text(), nullable=False, comment="hexadecimal; signs session ids and cursors"),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployment")),
    )
    op.create_table(
        "events",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("time", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("ticket_version", sa.Integer(), nullable=True),
        sa.Column("batch_id", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column(
            "nonce",
            sa.BigInteger(),
            nullable=False,
            comment="random: tells this row from another that took its seq later",
        ),
        sa.Column(
            "data", sa.Text(), nullable=False, comment="text and not JSON, so that published bytes stay as they were"
        ),
        sa.PrimaryKeyConstraint("workspace_id", "seq", name=op.f("pk_events")),
    )
    op.create_index(
        op.f("ix_events_workspace_id_subject_seq"), "events", ["workspace_id", "subject", "seq"], unique=False
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False, comment="SHA-256 of the request"),
        sa.Column("answer", sa.Text(), nullable=True, comment="null only inside the transaction that has the effect"),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "principal", "operation", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "workspaces",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("key_prefix", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("next_no", sa.BigInteger(), nullable=False, comment="the number of the next ticket"),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column("head_seq", sa.BigInteger(), nullable=False),
        sa.Column(
            "head_time", sa.Text(), nullable=False, comment="the time of the newest event: times never go back in a log"
        ),
        sa.Column("oldest_seq", sa.BigInteger(), nullable=False),
        sa.Column(
            "references_version", sa.BigInteger(), nullable=False, comment="raised by every change of reference data"
        ),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workspaces")),
        sa.UniqueConstraint("key_prefix", name=op.f("uq_workspaces_key_prefix")),
    )
    op.create_table(
        "accounts",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("order_no", sa.Integer(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_accounts_workspace_id")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_accounts")),
    )
    op.create_table(
        "categories",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("order_no", sa.Integer(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_categories_workspace_id")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_categories")),
    )
    op.create_table(
        "request_channels",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("order_no", sa.Integer(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_request_channels_workspace_id")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_request_channels")),
    )
    op.create_table(
        "response_categories",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("order_no", sa.Integer(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_response_categories_workspace_id")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_response_categories")),
    )
    op.create_table(
        "statuses",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("order_no", sa.Integer(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False, comment="todo, active, waiting, review, done, cancelled"),
        sa.Column("is_default", sa.Boolean(), nullable=False, comment="the one that a new ticket gets"),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_statuses_workspace_id")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_statuses")),
    )
    op.create_table(
        "users",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False, comment="human, agent, service"),
        sa.Column("role", sa.Text(), nullable=False, comment="requester, agent, manager, viewer, operator"),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_users_workspace_id")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_users")),
    )
    op.create_table(
        "category_details",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("category_id", sa.Text(), nullable=False),
        sa.Column("order_no", sa.Integer(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "category_id"],
            ["categories.workspace_id", "categories.id"],
            name=op.f("fk_category_details_workspace_id_category_id"),
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_category_details_workspace_id")),
        sa.PrimaryKeyConstraint("workspace_id", "id", name=op.f("pk_category_details")),
    )
    op.create_table(
        "tickets",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("no", sa.BigInteger(), nullable=False, comment="the number in the key; dense per workspace"),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("status_id", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False, comment="0 none to 4 urgent"),
        sa.Column("assignee_id", sa.Text(), nullable=True),
        sa.Column("requestor_id", sa.Text(), nullable=True),
        sa.Column("account_id", sa.Text(), nullable=True),
        sa.Column("category_id", sa.Text(), nullable=True),
        sa.Column("category_detail_id", sa.Text(), nullable=True),
        sa.Column("channel_id", sa.Text(), nullable=True),
        sa.Column("reception_at", sa.Text(), nullable=False),
        sa.Column("due", sa.Text(), nullable=True),
        sa.Column("completion_date", sa.Text(), nullable=True),
        sa.Column("actual_effort_hours", sa.Float(), nullable=True),
        sa.Column("response_category_id", sa.Text(), nullable=True),
        sa.Column("response_details", sa.Text(), nullable=True),
        sa.Column("has_defect", sa.Boolean(), nullable=True),
        sa.Column("external_ticket_id", sa.Text(), nullable=True),
        sa.Column("remarks", sa.Text(), nullable=True),
        sa.Column("parent_no", sa.BigInteger(), nullable=True),
        sa.Column("waiting_reason", sa.Text(), nullable=True),
        sa.Column("progress_percent", sa.SmallInteger(), nullable=True),
        sa.Column("progress_note", sa.Text(), nullable=True),
        sa.Column(
            "search_text", sa.Text(), nullable=False, comment="key, summary and description, normalised for searching"
        ),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Text(), nullable=False),
        sa.Column("deleted_at", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id", "account_id"],
            ["accounts.workspace_id", "accounts.id"],
            name=op.f("fk_tickets_workspace_id_account_id"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "assignee_id"],
            ["users.workspace_id", "users.id"],
            name=op.f("fk_tickets_workspace_id_assignee_id"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "category_detail_id"],
            ["category_details.workspace_id", "category_details.id"],
            name=op.f("fk_tickets_workspace_id_category_detail_id"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "category_id"],
            ["categories.workspace_id", "categories.id"],
            name=op.f("fk_tickets_workspace_id_category_id"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "channel_id"],
            ["request_channels.workspace_id", "request_channels.id"],
            name=op.f("fk_tickets_workspace_id_channel_id"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "parent_no"],
            ["tickets.workspace_id", "tickets.no"],
            name=op.f("fk_tickets_workspace_id_parent_no"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "requestor_id"],
            ["users.workspace_id", "users.id"],
            name=op.f("fk_tickets_workspace_id_requestor_id"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "response_category_id"],
            ["response_categories.workspace_id", "response_categories.id"],
            name=op.f("fk_tickets_workspace_id_response_category_id"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "status_id"],
            ["statuses.workspace_id", "statuses.id"],
            name=op.f("fk_tickets_workspace_id_status_id"),
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_tickets_workspace_id")),
        sa.PrimaryKeyConstraint("workspace_id", "no", name=op.f("pk_tickets")),
    )
    op.create_index(
        op.f("ix_tickets_workspace_id_assignee_id_no"), "tickets", ["workspace_id", "assignee_id", "no"], unique=False
    )
    op.create_index(op.f("ix_tickets_workspace_id_parent_no"), "tickets", ["workspace_id", "parent_no"], unique=False)
    op.create_index(
        op.f("ix_tickets_workspace_id_status_id_no"), "tickets", ["workspace_id", "status_id", "no"], unique=False
    )
    op.create_index(
        op.f("ix_tickets_workspace_id_updated_at_no"), "tickets", ["workspace_id", "updated_at", "no"], unique=False
    )
    op.create_table(
        "attachments",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("ticket_no", sa.BigInteger(), nullable=False),
        sa.Column("no", sa.Integer(), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False, comment="http or https"),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "ticket_no"],
            ["tickets.workspace_id", "tickets.no"],
            name=op.f("fk_attachments_workspace_id_ticket_no"),
        ),
        sa.PrimaryKeyConstraint("workspace_id", "ticket_no", "no", name=op.f("pk_attachments")),
    )
    op.create_table(
        "comments",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False, comment="the seq of the event that carried it"),
        sa.Column("ticket_no", sa.BigInteger(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False, comment="the actor, such as user:alice"),
        sa.Column("kind", sa.Text(), nullable=False, comment="note, question, answer, decision"),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("search_text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("edited_at", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["workspace_id", "ticket_no"],
            ["tickets.workspace_id", "tickets.no"],
            name=op.f("fk_comments_workspace_id_ticket_no"),
        ),
        sa.PrimaryKeyConstraint("workspace_id", "seq", name=op.f("pk_comments")),
    )
    op.create_index(
        op.f("ix_comments_workspace_id_ticket_no_seq"), "comments", ["workspace_id", "ticket_no", "seq"], unique=False
    )
    op.create_table(
        "ticket_labels",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("ticket_no", sa.BigInteger(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "ticket_no"],
            ["tickets.workspace_id", "tickets.no"],
            name=op.f("fk_ticket_labels_workspace_id_ticket_no"),
        ),
        sa.PrimaryKeyConstraint("workspace_id", "ticket_no", "label", name=op.f("pk_ticket_labels")),
    )
    op.create_index(
        op.f("ix_ticket_labels_workspace_id_label_ticket_no"),
        "ticket_labels",
        ["workspace_id", "label", "ticket_no"],
        unique=False,
    )
    op.create_table(
        "ticket_relations",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("from_no", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="blocks, related, duplicates: `from` blocks `to`"),
        sa.Column("to_no", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id", "from_no"],
            ["tickets.workspace_id", "tickets.no"],
            name=op.f("fk_ticket_relations_workspace_id_from_no"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "to_no"],
            ["tickets.workspace_id", "tickets.no"],
            name=op.f("fk_ticket_relations_workspace_id_to_no"),
        ),
        sa.PrimaryKeyConstraint("workspace_id", "from_no", "kind", "to_no", name=op.f("pk_ticket_relations")),
    )
    op.create_index(
        op.f("ix_ticket_relations_workspace_id_to_no_kind"),
        "ticket_relations",
        ["workspace_id", "to_no", "kind"],
        unique=False,
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_ticket_relations_workspace_id_to_no_kind"), table_name="ticket_relations")
    op.drop_table("ticket_relations")
    op.drop_index(op.f("ix_ticket_labels_workspace_id_label_ticket_no"), table_name="ticket_labels")
    op.drop_table("ticket_labels")
    op.drop_index(op.f("ix_comments_workspace_id_ticket_no_seq"), table_name="comments")
    op.drop_table("comments")
    op.drop_table("attachments")
    op.drop_index(op.f("ix_tickets_workspace_id_updated_at_no"), table_name="tickets")
    op.drop_index(op.f("ix_tickets_workspace_id_status_id_no"), table_name="tickets")
    op.drop_index(op.f("ix_tickets_workspace_id_parent_no"), table_name="tickets")
    op.drop_index(op.f("ix_tickets_workspace_id_assignee_id_no"), table_name="tickets")
    op.drop_table("tickets")
    op.drop_table("category_details")
    op.drop_table("users")
    op.drop_table("statuses")
    op.drop_table("response_categories")
    op.drop_table("request_channels")
    op.drop_table("categories")
    op.drop_table("accounts")
    op.drop_table("workspaces")
    op.drop_index(op.f("ix_idempotency_keys_created_at"), table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.drop_index(op.f("ix_events_workspace_id_subject_seq"), table_name="events")
    op.drop_table("events")
    op.drop_table("deployment")
