"""The tickets of each status are counted as they change; an index has a person's tickets by their last change."""

from collections import defaultdict

import orjson
import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_COUNTS = sa.text(
    "SELECT workspace_id, status_id, count(*) AS number FROM tickets WHERE deleted_at IS NULL GROUP BY 1, 2"
)
_STORE = sa.text("UPDATE workspaces SET ticket_counts = :counts WHERE id = :id")


def upgrade() -> None:
    kept = "JSON: by status the tickets that are not deleted; kept with each change"
    op.add_column(
        "workspaces", sa.Column("ticket_counts", sa.Text(), nullable=False, server_default="{}", comment=kept)
    )
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for row in op.get_bind().execute(_COUNTS):
        counts[row.workspace_id][row.status_id] = row.number
    for workspace, by_status in counts.items():
        op.get_bind().execute(_STORE, {"id": workspace, "counts": orjson.dumps(by_status).decode()})
    op.create_index("ix_tickets_assignee", "tickets", ["workspace_id", "assignee_id", "updated_at", "no"])
    op.drop_index("ix_tickets_workspace_id_assignee_id_no", "tickets")


def downgrade() -> None:
    op.create_index("ix_tickets_workspace_id_assignee_id_no", "tickets", ["workspace_id", "assignee_id", "no"])
    op.drop_index("ix_tickets_assignee", "tickets")
    op.drop_column("workspaces", "ticket_counts")
