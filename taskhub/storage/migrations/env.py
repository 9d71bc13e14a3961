"""Runs the migrations on the connection that taskhub.storage.migrate hands over."""

from alembic import context

from taskhub.storage.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,
    on_version_apply=context.config.attributes.get("applied"),
)
# The caller owns the transaction: schema and first rows are committed together.
context.run_migrations()
