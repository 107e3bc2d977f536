"""Run by alembic for every command. The connection is given, and its transaction belongs to the caller."""

from alembic import context

from enginehouse.services.control.schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    compare_type=True,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
