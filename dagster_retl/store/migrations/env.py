"""What Alembic runs: migrations on the connection, and in the transaction, of `store.migrate`."""

from alembic import context

from dagster_retl.store.migrate import VERSION_TABLE
from dagster_retl.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
